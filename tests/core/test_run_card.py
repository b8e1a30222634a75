"""The run card: read as written, unknown keys kept, damage told with file and key."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from elysia.core.errors import ElysiaError, RunCardError
from elysia.core.run_card import FILE, RunCard


def _card() -> RunCard:
    return RunCard(
        stage="train",
        base_model="internlm/internlm2-chat-1_8b",
        base_weights={"files": 1, "bytes": 9, "sha256": "ab"},
        template={"name": "internlm2_chat", "stop_words": ["<|im_end|>"]},
        stop_words=["<|im_end|>"],
        system="你是爱莉希雅。",
        datasets=[{"path": "data/elysia.json", "format": "xtuner", "rows": 600, "sha256": "cd"}],
        metrics={"loss": 1.5},
    )


def test_a_card_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = _card().write(tmp_path)
    assert path.name == FILE and "爱莉希雅" in path.read_text(encoding="utf-8")
    read = RunCard.read(tmp_path)
    assert read is not None
    assert read.to_dict() | {"created": ""} == _card().to_dict() | {"created": ""}
    assert RunCard.from_dict(read.to_dict()) == read


def test_no_card_is_none(tmp_path: Path) -> None:
    assert RunCard.read(tmp_path) is None
    assert RunCard.read(tmp_path / "nowhere") is None
    (tmp_path / "file").write_text("x")
    assert RunCard.read(tmp_path / "file") is None


def test_keys_of_a_later_version_are_kept(tmp_path: Path) -> None:
    values = _card().to_dict() | {"voice": {"name": "a"}}
    (tmp_path / FILE).write_text(json.dumps(values))
    card = RunCard.read(tmp_path)
    assert card is not None and card.extra == {"voice": {"name": "a"}}
    card.updated(stage="adapter").write(tmp_path)
    assert json.loads((tmp_path / FILE).read_text())["voice"] == {"name": "a"}


def test_a_change_makes_another_card_and_metrics_add_up() -> None:
    card = _card()
    merged = card.updated(stage="merged", metrics={"merge_kl": 0.1})
    assert merged.metrics == {"loss": 1.5, "merge_kl": 0.1}
    assert (card.stage, card.metrics) == ("train", {"loss": 1.5})
    with pytest.raises(RunCardError, match="'baked'"):
        card.updated(stage="baked")


def _without(key: str) -> dict[str, Any]:
    return {k: v for k, v in _card().to_dict().items() if k != key}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged"),
        ("[]", "a list instead of an object"),
        (json.dumps(_without("stage")), "lacks the key 'stage'"),
        (json.dumps(_without("base_model")), "lacks the key 'base_model'"),
        (json.dumps(_card().to_dict() | {"template": "x"}), "'template' is of type str"),
        (json.dumps(_card().to_dict() | {"stop_words": None}), "'stop_words' is of type NoneType"),
        (json.dumps(_card().to_dict() | {"stage": "baked"}), "'baked'"),
        (json.dumps(_card().to_dict() | {"method": "magic"}), "'magic'"),
    ],
)
def test_damage_is_told_with_file_and_key(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RunCardError) as caught:
        RunCard.read(tmp_path)
    assert words in str(caught.value) and str(tmp_path / FILE) in str(caught.value)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe{}")
    with pytest.raises(RunCardError, match="cannot be read"):
        RunCard.read(tmp_path)


def test_a_card_needs_only_stage_and_base(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"stage": "base", "base_model": "x"}')
    card = RunCard.read(tmp_path)
    assert card is not None and card.persona is None and card.datasets == []


def test_a_full_disk_leaves_the_card_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _card().write(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ElysiaError, match="disk is full"):
        _card().updated(stage="merged").write(tmp_path)
    read = RunCard.read(tmp_path)
    assert read is not None and read.stage == "train"
