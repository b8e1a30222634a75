"""How much a message or a sentence matters later: names, decisions and feelings more than greetings.

Knows nothing of memories or summaries.
"""

from __future__ import annotations

import re

from elysia.memory.words import content

_DECIDED = re.compile(
    r"决定|打算|准备|计划|答应|约好|改成|改到|辞职|搬|分手|结婚|毕业|考上|录用|通过|放弃|戒|"
    r"\b(?:decided|decide|plan(?:ning)?|promised?|agreed|moving|moved|quit|accepted|got the|"
    r"turned down|gave up|will|going to)\b",
    re.I,
)
_FELT = re.compile(
    r"难过|伤心|哭|开心|高兴|害怕|担心|焦虑|激动|生气|孤单|想念|失眠|压力|骄傲|感动|吓|"
    r"\b(?:sad|cried|cry|happy|afraid|scared|worried|anxious|excited|angry|lonely|miss(?:ed)?|"
    r"stress(?:ed)?|proud|love|hate|nervous)\b",
    re.I,
)
_NAMED = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+|《[^》]+》|「[^」]+」|\d|叫|生日")
_HOLLOW = re.compile(
    r"^(?:hi|hello|hey|ok(?:ay)?|thanks?|thank you|you're welcome|bye|goodbye|good (?:night|"
    r"morning)|haha|"
    r"你好|嗨|好的?|嗯+|谢谢|晚安|再见|早安|哈哈)\b.{0,24}$",
    re.I,
)


def weight_of(text: str, role: str, facts: int = 0) -> float:
    """The importance of a text between 0 and 1; `facts`: how many were found in it."""
    text = text.strip()[:2_000]
    if _HOLLOW.search(text):
        return 0.1 + (0.4 if facts else 0.0)
    weight = 0.3 if role == "user" else 0.2
    weight += 0.25 if facts else 0.0
    weight += 0.15 if _DECIDED.search(text) else 0.0
    weight += 0.15 if _FELT.search(text) else 0.0
    weight += 0.1 if _NAMED.search(text) else 0.0
    weight += 0.05 if len(content(text)) > 6 else 0.0
    return round(min(weight, 1.0), 2)
