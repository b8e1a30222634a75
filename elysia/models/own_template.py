"""The chat template a model carries: in its folder as transformers saves it, or in a GGUF's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from elysia.core.errors import ModelError
from elysia.models.jinja_template import JinjaTemplate

TEMPLATE_FILE = "chat_template.jinja"
OWN = "own"  # the name of such a template


def read_own_template(folder: str | Path) -> JinjaTemplate | None:
    """The chat template of a model folder; None without one.

    `chat_template.jinja` comes before `chat_template.json` and `tokenizer_config.json`; of several named
    ones, "default". All end tokens of `generation_config.json` end a reply. Raises ModelError for a file
    that cannot be read.
    """
    folder = Path(folder)
    config = _read_json(folder / "tokenizer_config.json")
    file = folder / TEMPLATE_FILE
    try:
        source: Any = file.read_text(encoding="utf-8") if file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError("core.file_unreadable", path=file, reason=str(error)) from error
    if source is None:
        source = _read_json(folder / "chat_template.json").get("chat_template")
    source = _choose_template(source if source is not None else config.get("chat_template"))
    if not source:
        return None
    special = {**_read_json(folder / "special_tokens_map.json"), **config}
    ends = _read_json(folder / "generation_config.json").get("eos_token_id")
    ids = [i for i in (ends if isinstance(ends, list) else [ends]) if isinstance(i, int)]
    names = _read_token_names(folder, config) if ids else {}
    return JinjaTemplate(
        OWN,
        source,
        _get_text(special.get("bos_token")),
        _get_text(special.get("eos_token")),
        _collect_stop_words(names.get(i) for i in ids),
    )


def read_gguf_template(header: Mapping[str, Any]) -> JinjaTemplate | None:
    """The chat template of a GGUF's metadata (`gguf_reader.read_gguf_header`); None without one."""
    source = header.get("tokenizer.chat_template")
    if not isinstance(source, str) or not source.strip():
        return None

    def get_token(key: str) -> str:
        number = find_special_id(header, key)
        return "" if number is None else str(header["tokenizer.ggml.tokens"][number])

    ends = _collect_stop_words([get_token("eot"), get_token("eom")])
    return JinjaTemplate(OWN, source, get_token("bos"), get_token("eos"), ends)


def find_special_id(header: Mapping[str, Any], key: str) -> int | None:
    """The id that a GGUF's metadata gives a special token (GGUF's names: "bos", "eot", "padding", …); None
    where it names none, or one that its vocabulary does not have."""
    number = header.get(f"tokenizer.ggml.{key}_token_id")
    is_known = isinstance(number, int) and 0 <= number < len(
        header.get("tokenizer.ggml.tokens", [])
    )
    return number if is_known else None


def _collect_stop_words(words: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))


def _choose_template(source: Any) -> str:
    """The text of a `chat_template`, which may be a list of named ones."""
    if isinstance(source, list):
        named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
        source = named.get("default") or next(iter(named.values()), None)
    return source if isinstance(source, str) and source.strip() else ""


def _get_text(token: Any) -> str:
    """The text of a special token, which may be an object with its `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _read_token_names(folder: Path, config: Mapping[str, Any]) -> dict[int, str]:
    """The texts of a tokenizer's added tokens by id."""
    names: dict[int, str] = {}
    for token in _read_json(folder / "tokenizer.json").get("added_tokens", []):
        names[int(token["id"])] = str(token["content"])
    for number, token in config.get("added_tokens_decoder", {}).items():
        names[int(number)] = _get_text(token)
    return names


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("core.file_unreadable", path=path, reason=str(error)) from error
    return values if isinstance(values, dict) else {}
