"""Formats whose rows need no template: MOSS's conversations with their own markup, and token ids.

XTuner reads them with classes of their own (MOSSSFTDataset, InternRepo's loaders); here each is a
format by name, like those of registry.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError
from elysia.core.templates import TextPiece
from elysia.data.formats.fields import require_list, require_object, require_text
from elysia.data.formats.multi_turn import openai
from elysia.data.readers.row_reader import DatasetRow, read_rows, rename_columns
from elysia.data.schema import IGNORE, EncodedSample, Sample

# A tool's answer stands between these marks; the marks are learned, the answer is not.
RESULTS, END_OF_RESULTS = "<|Results|>:", "<eor>\n"
TOOL = "Tool Responses"


def moss_sft(row: DatasetRow, bot_name: str = "") -> Sample:
    r"""MOSS's rows with plugins: `meta_instruction`, and `chat` of `turn_1`, `turn_2`, …, each an
    object of texts that contain their own markup. Everything is learned except the instruction and
    the answers of tools.

    >>> turn = {"Human": "<|Human|>: a<eoh>\n", "Tool Responses": "<|Results|>:\nb<eor>\n"}
    >>> sample = moss_sft(DatasetRow({"meta_instruction": "m", "chat": {"turn_1": turn}}, "f", 1))
    >>> [(piece.text, piece.learn) for piece in sample.turns[1]][1:]
    [('<|Results|>:', True), ('\nb', False), ('<eor>\n', True)]
    """
    head = _named(require_text(row.value, "meta_instruction"), bot_name)
    turns: list[tuple[TextPiece, ...]] = [(TextPiece("", False, "bos"), TextPiece(head, False))]
    chat = require_object(row.value.get("chat"), "chat")
    count = row.value.get("num_turns", len(chat))
    if not str(count).isdigit():
        raise DataError("data.turns_not_integer", value=repr(count))
    for number in range(1, int(count) + 1):
        where = f"chat.turn_{number}"
        turn = require_object(chat.get(f"turn_{number}"), where)
        pieces: list[TextPiece] = []
        for key in turn:
            text = _named(require_text(turn, key, where), bot_name)
            pieces += _tool(text) if key == TOOL else [TextPiece(text, True)]
        turns.append(tuple(pieces))
    if len(turns) < 2:
        raise DataError("data.moss_without_turns")
    return Sample([], row.file, row.number, turns=tuple(turns))


def _named(text: str, bot_name: str) -> str:
    return text.replace("MOSS", bot_name) if bot_name else text


def _tool(text: str) -> list[TextPiece]:
    if not (text.startswith(RESULTS) and text.endswith(END_OF_RESULTS)):
        return [TextPiece(text, True)]
    inside = text[len(RESULTS) : -len(END_OF_RESULTS)]
    middle = [TextPiece(inside, False)] if inside else []
    return [TextPiece(RESULTS, True), *middle, TextPiece(END_OF_RESULTS, True)]


def tokens(row: DatasetRow, bot_name: str = "") -> Sample:
    """Rows of `tokens` (a negative number is context: that token, unlearned), as InternLM's
    trainer writes them, or of `input_ids` with `labels` (all learned where there are none).

    >>> tokens(DatasetRow({"tokens": [-5, 6]}, "f", 1)).encoded
    EncodedSample(ids=[5, 6], labels=[-100, 6])
    """
    if "tokens" in row.value:
        numbers = _numbers(row.value, "tokens")
        # InternLM's own rule: zero is context, too.
        labels = [n if n > 0 else IGNORE for n in numbers]
        return Sample(
            [], row.file, row.number, encoded=EncodedSample([abs(n) for n in numbers], labels)
        )
    ids = _numbers(row.value, "input_ids")
    labels = _numbers(row.value, "labels") if "labels" in row.value else list(ids)
    if len(labels) != len(ids):
        raise DataError("data.labels_length", ids=len(ids), labels=len(labels))
    return Sample([], row.file, row.number, encoded=EncodedSample(ids, labels))


def _numbers(row: dict[str, Any], key: str) -> list[int]:
    values = require_list(row, key)
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise DataError("data.value_not_integers", key=key)
    return values


def _messages(row: DatasetRow, bot_name: str = "") -> Sample:
    return Sample(openai(row.value), row.file, row.number)


def _rows(path: str | Path, columns: Mapping[str, str] | None) -> Iterator[DatasetRow]:
    if Path(path).suffix == ".bin":
        return rename_columns(_lines(path), columns)
    return rename_columns(read_rows(path), columns)


def _lines(path: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[DatasetRow]:
    """One JSON value per line, whatever the file is called; a list is a row of messages."""
    number = 0
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                value = json.loads(line)
                value = {"messages": value} if isinstance(value, list) else value
                yield DatasetRow(require_object(value, "the row"), str(path), number, len(line))
    except OSError as error:
        raise DataError("data.file_unreadable", path=path, detail=error.strerror) from None
    except ValueError as error:
        raise DataError(
            "data.row_line_not_json", path=path, line=max(number, 1), detail=str(error)
        ) from None


Reader = Callable[[str | Path, Mapping[str, str] | None], Iterator[DatasetRow]]
# name -> (read the rows of a file, convert a row)
PRETOKENIZED: dict[str, tuple[Reader, Callable[[DatasetRow, str], Sample]]] = {
    "moss_sft": (_rows, moss_sft),
    "tokens": (_rows, tokens),
    "openai_lines": (_lines, _messages),
}
