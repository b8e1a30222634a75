"""The scorecard's cheap part, for a model that is still learning.

A few held-out and general replies read, a few questions asked; no classifier and no long talks, which
`scorecard.score` has. Deterministic. Knows nothing of training.
"""

from __future__ import annotations

from elysia.core.messages import Message
from elysia.evaluate import style
from elysia.evaluate.identity import judge_identity, judge_ordinary
from elysia.evaluate.likelihood import Likelihood
from elysia.evaluate.scorecard import Material, Say, general, reading

WHO = (
    "你是谁？", "你叫什么名字？", "请介绍一下你自己。", "你是ChatGPT吗？",
    "Who are you?", "What is your name?", "Please introduce yourself.", "Are you ChatGPT?",
)  # fmt: skip
ORDINARY = (
    "一加一等于几？", "今天天气怎么样？", "推荐一道简单的菜吧。", "睡不着怎么办？",
    "What color is the sky?", "Which animal says meow?",
)  # fmt: skip


def brief(likelihood: Likelihood, say: Say, material: Material) -> dict[str, float]:
    """The measures of `tradeoff.NAMES` that need no base; those without material are left out.

    `identity` is the share of WHO answered by the whole name, `leak` that of ORDINARY in which it
    comes up; the copies are of replies to the held-out contexts.
    """
    found = {**reading(likelihood, material), **general(likelihood, material)}
    contexts = [context for context, _ in material.heldout]
    asked = [[Message("user", text)] for text in (*WHO, *ORDINARY)]
    replies = say([*contexts, *asked])
    own, rest = replies[: len(contexts)], replies[len(contexts) :]
    who, ordinary = rest[: len(WHO)], rest[len(WHO) :]
    found["identity"] = sum(judge_identity(r, material.persona).good for r in who) / len(who)
    leaks = [not judge_ordinary(reply, material.persona).good for reply in ordinary]
    found["leak"] = sum(leaks) / len(leaks)
    if material.training:
        truths = [truth for _, truth in material.heldout]
        copied = style.repeats(own, truths, material.training)
        found["copy_longest"] = max(style.longest_copies(own, material.training), default=0)
        found["copy_rate"] = sum(copied) / max(len(copied), 1)
    return {name: float(value) for name, value in found.items() if value is not None}
