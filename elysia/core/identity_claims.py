"""Whether a reply, Chinese or English, claims to be another assistant such as ChatGPT or 文心一言.

Used to lint training rows and to score a model's replies to identity questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

# Names that a reply may not claim as its own.
ASSISTANTS = (
    "ChatGPT", "GPT", "OpenAI", "Claude", "Anthropic", "Gemini", "Bard", "Copilot", "Cortana",
    "Siri", "Alexa", "Llama", "Mistral", "Grok", "Qwen", "DeepSeek", "Kimi", "InternLM", "ChatGLM",
    "GLM", "MOSS", "Baichuan", "MiniMax", "Doubao", "Ernie", "Yi", "Bing",
    "通义千问", "千问", "文心一言", "文心", "讯飞星火", "星火", "豆包", "深度求索", "书生", "浦语",
    "智谱清言", "智谱", "百川", "混元", "盘古", "小爱同学", "小冰", "小度", "小艺", "天猫精灵",
    "元宝", "月之暗面", "零一万物", "百度", "阿里巴巴", "谷歌", "微软", "苹果公司", "必应",
)  # fmt: skip
# Words in front of 我是 that make it an opinion or a question (你以为我是ChatGPT) instead of a claim.
NOT_A_CLAIM = "".join(
    f"(?<!{w})"
    for w in ("以为", "觉得", "认为", "当作", "如果", "假如", "就算", "难道", "问", "说", "把")
)
I_AM_ZH = (
    NOT_A_CLAIM
    + r"我(?:的名字|[就也正确真其实当然在只])*(?:是|叫做?|名叫)[^,,。.!!??;;、~不非没\n]{0,8}?"
)
I_AM_EN = (
    r"\b(?:I\s*(?:'|’)?\s*a?m|my name is|call me)\s+(?!not\b)"
    r"(?:(?:an?|the|your|actually|really|just|called|named|AI|assistant|model|by|from|made|trained)\s+)*"
)


def find_claimed_assistant(reply: str, own_names: Iterable[str] = ()) -> str:
    """The other assistant (or its maker) that the reply says it is; "" when it claims nothing.

    `own_names` are names the speaker may use of itself, in any case.

    >>> find_claimed_assistant("我是ChatGPT,很高兴见到你")
    'ChatGPT'
    >>> find_claimed_assistant("我是ChatGPT", own_names=["chatgpt"])
    ''
    """
    match = _build_claim_pattern(frozenset(name.lower() for name in own_names)).search(reply)
    return match.group(1) if match else ""


@cache
def _build_claim_pattern(own_names: frozenset[str]) -> re.Pattern[str]:
    names = [name for name in ASSISTANTS if name.lower() not in own_names]
    # A Latin name must end there ("Yi" is not in "Yibo"); Chinese has no spaces to tell by.
    either = "|".join(
        rf"{re.escape(name)}(?![A-Za-z])" if name.isascii() else re.escape(name) for name in names
    )
    return re.compile(f"(?:{I_AM_ZH}(?<![A-Za-z])|{I_AM_EN})({either})", re.I)
