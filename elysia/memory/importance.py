"""How much a message matters later: names, decisions and feelings count more than greetings."""

from __future__ import annotations

import re
from collections.abc import Collection

from elysia.retrieval.analyzer import count_content_words, fold_text

_DECISION = re.compile(
    r"决定|打算|准备|计划|答应|约好|改成|改到|辞职|搬|分手|结婚|毕业|考上|录用|通过|放弃|戒|"
    r"\b(?:decided|decide|plan(?:ning)?|promised?|agreed|moving|moved|quit|accepted|got the|"
    r"turned down|gave up|will|going to)\b",
    re.I,
)
_FEELING = re.compile(
    r"难过|伤心|哭|开心|高兴|害怕|担心|焦虑|激动|生气|孤单|想念|失眠|压力|骄傲|感动|吓|"
    r"\b(?:sad|cried|cry|happy|afraid|scared|worried|anxious|excited|angry|lonely|miss(?:ed)?|"
    r"stress(?:ed)?|proud|love|hate|nervous)\b",
    re.I,
)
_NAMES = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+|《[^》]+》|「[^」]+」|\d|叫|生日")
_GREETING = re.compile(
    r"^(?:hi|hello|hey|ok(?:ay)?|thanks?|thank you|you're welcome|bye|goodbye|good (?:night|"
    r"morning)|haha|"
    r"你好|嗨|好的?|嗯+|谢谢|晚安|再见|早安|哈哈)\b.{0,24}$",
    re.I,
)

# Greetings, thanks, assent and calls, in any order and number, of a folded text.
_SMALL_TALK = re.compile(
    r"(?:你好|您好|大家好|早安|早上好|上午好|中午好|午安|下午好|晚上好|晚安|再见|拜拜|回头见|明天见|回见|"
    r"谢谢(?:你|您|大家)?|多谢|不客气|没关系|没事|辛苦了|好的|好吧|是的|对的|可以|在吗|在呢|哈喽|哈啰|"
    r"我(?:来|回来|到)了|(?:你|您)?好久不见|"
    r"[嗯哦噢喔啊哈嘿呵呀呢吧啦哟诶唉嗨喂早好对行]|"
    r"hi|hello|hey|there|good ?(?:morning|afternoon|evening|night)|bye|goodbye|see (?:you|ya)|"
    r"thanks|thank you|you're welcome|no problem|so much|very much|okay|ok|sure|yes|yeah|yep|"
    r"haha|lol|how are you|nice to (?:meet|see) you|i'm back|again|[\W_])*"
)
MAX_SMALL_TALK = 40  # characters; a longer text is taken to say something
MAX_SCORED = 2_000  # characters of a text that are looked at


def score_importance(text: str, role: str, facts: int = 0) -> float:
    """The importance of a text, from 0 to 1; `facts` is how many were found in it."""
    text = text.strip()[:MAX_SCORED]
    if _GREETING.search(text):
        return 0.1 + (0.4 if facts else 0.0)
    weight = 0.3 if role == "user" else 0.2
    weight += 0.25 if facts else 0.0
    weight += 0.15 if _DECISION.search(text) else 0.0
    weight += 0.15 if _FEELING.search(text) else 0.0
    weight += 0.1 if _NAMES.search(text) else 0.0
    weight += 0.05 if len(count_content_words(text)) > 6 else 0.0
    return round(min(weight, 1.0), 2)


def is_small_talk(text: str, names: Collection[str] = ()) -> bool:
    """Whether a text is only greetings, thanks or assent; `names` are those of the speakers.

    >>> is_small_talk("早上好呀，爱莉！", ["爱莉"]), is_small_talk("好的，周三去医院。")
    (True, False)
    """
    text = text.strip()
    if len(text) > MAX_SMALL_TALK:
        return False
    text = fold_text(text)
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(fold_text(name), " ") if name.strip() else text
    return _SMALL_TALK.fullmatch(text) is not None
