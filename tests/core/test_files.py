"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from elysia.core import files
from elysia.core.errors import CheckpointError, ElysiaError, ExportError
from elysia.core.files import compute_sha256, staged_file, staged_folder, write_atomic


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_text_is_written_as_utf8_and_bytes_as_they_are(tmp_path: Path) -> None:
    write_atomic(tmp_path / "deep" / "a", "爱莉")
    assert (tmp_path / "deep" / "a").read_bytes() == "爱莉".encode()
    write_atomic(tmp_path / "deep" / "a", b"\x00\xff")
    assert (tmp_path / "deep" / "a").read_bytes() == b"\x00\xff"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a"]


def test_a_file_gets_the_mode_that_open_would_give(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, step, _full)
    with pytest.raises(ElysiaError, match="the disk is full"):
        write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with staged_folder(out) as staging:
        (staging / "a").write_text("x")
        assert not out.exists()
    assert (out / "a").read_text() == "x"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("fault", [ValueError("mine"), KeyboardInterrupt(), ExportError("said")])
def test_a_failure_leaves_nothing_and_passes_through(fault: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(fault)) as caught, staged_folder(tmp_path / "out") as staging:
        (staging / "a").write_text("x")
        raise fault
    assert caught.value is fault
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_the_fault_that_the_caller_names(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="disk is full"):  # noqa: SIM117
        with staged_folder(tmp_path / "out", CheckpointError):
            _full()
    with pytest.raises(ExportError, match="disk is full"), staged_folder(tmp_path / "out"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    assert list(tmp_path.iterdir()) == []


def test_what_others_wrote_is_refused_and_what_we_wrote_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with staged_folder(out) as staging:  # empty: taken
        (staging / "mark").write_text("1")
    with pytest.raises(ExportError, match="not empty"), staged_folder(out):
        pass
    is_own = lambda folder: (folder / "mark").exists()  # noqa: E731
    with staged_folder(out, replaces=is_own) as staging:
        (staging / "new").write_text("2")
    assert [p.name for p in out.iterdir()] == ["new"]
    with pytest.raises(ExportError, match="not empty"), staged_folder(out, replaces=is_own):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="is a file"), staged_folder(tmp_path / "file"):
        pass


def test_a_failure_while_replacing_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mark").write_text("old")
    real, calls = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            _full()
        real(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with (
        pytest.raises(ExportError, match="disk is full"),
        staged_folder(out, replaces=lambda _: True),
    ):
        pass
    assert (out / "mark").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_cleared_and_its_former_folder_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_is_process_alive", lambda process: process == 77)
    for name in (".out.writing-5.abc", ".out.writing-5.abc.old", ".out.writing-77.def"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.writing-5.abc.old" / "mark").write_text("former")
    with pytest.raises(ValueError), staged_folder(tmp_path / "out", replaces=lambda _: True):
        raise ValueError("this run fails too")
    assert (tmp_path / "out" / "mark").read_text() == "former"
    leftover = {path.name for path in tmp_path.iterdir()}
    assert leftover == {"out", ".out.writing-77.def"}  # 77 lives: it is still writing


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(ExportError, match="was not written"),
        staged_folder(tmp_path / "file" / "o"),
    ):
        pass
    with pytest.raises(ElysiaError, match="was not written"):
        write_atomic(tmp_path / "file" / "o", "x")


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert compute_sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")


def test_a_staged_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "sub" / "x"
    with pytest.raises(ZeroDivisionError), staged_file(target) as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert list(target.parent.iterdir()) == []
    with staged_file(target) as stream:
        stream.write(b"whole")
    assert [path.name for path in target.parent.iterdir()] == [
        "x"
    ] and target.read_bytes() == b"whole"
