"""Whether the marks of a prompt template are tokens of a tokenizer.

Those of another model's template are spelled letter by letter, and no model was trained on that.
"""

from __future__ import annotations

import re
from typing import Any

from elysia.core.i18n import Text
from elysia.core.messages import Message
from elysia.core.templates import ChatTemplate

_MARK = re.compile(r"<\|[^<>|\n]{1,64}\|>|<｜[^<>｜\n]{1,64}｜>|</?\w+_of_turn>")


def describe_unknown_marks(template: ChatTemplate, tokenizer: Any) -> Text | None:
    """A warning, with both counts, when marks such as `<|im_start|>` take more than one token each.

    The marks are those of a talk of one question and one reply. `tokenizer` is called with texts, as a
    transformers tokenizer is.
    """
    talk = [Message("system", "s"), Message("user", "q"), Message("assistant", "a")]
    pieces = template.render_training(talk)[-1]
    marks = [mark for piece in pieces for mark in _MARK.findall(piece.text)]
    if not marks:
        return None
    sizes = [len(ids) for ids in tokenizer(marks, add_special_tokens=False)["input_ids"]]
    if sum(sizes) == len(marks):
        return None
    unknown = [mark for mark, size in zip(marks, sizes, strict=True) if size > 1]
    params = {
        "name": template.name,
        "unknown": list(dict.fromkeys(unknown)),
        "tokens": sum(sizes),
        "marks": len(marks),
    }
    return Text("models.unknown_marks", params)
