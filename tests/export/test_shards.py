"""Shards: read as safetensors wrote them, written as safetensors reads them, whole or refused."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from elysia.core.errors import ExportError
from elysia.core.files import staged_folder
from elysia.export.shards import ShardReader, TensorSpec, parse_size, write_shards

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b": torch.tensor(3.5, dtype=torch.float16),
    "c": torch.randn(7, 5).to(torch.bfloat16),
    "d": torch.tensor([1, 2, 3]),
    "e": torch.zeros(0, 4),
    "f": torch.tensor([True, False, True]),
}


def _specs(tensors: dict[str, torch.Tensor]) -> list[TensorSpec]:
    return [TensorSpec(name, t.dtype, tuple(t.shape)) for name, t in tensors.items()]


@pytest.mark.parametrize("size", [1, 50, 10**9])
def test_what_is_written_is_read_back_by_safetensors(size: int, tmp_path: Path) -> None:
    files = write_shards(tmp_path, _specs(TENSORS), TENSORS.__getitem__, size)
    tensors = {name: t for path in files for name, t in load_file(path).items()}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
    shards = ShardReader(tmp_path)
    assert all(torch.equal(shards.tensor(name), TENSORS[name]) for name in shards)


def test_no_file_is_larger_than_asked_unless_one_tensor_is(tmp_path: Path) -> None:
    tensors = {str(i): torch.zeros(100) for i in range(10)} | {"big": torch.zeros(1000)}
    files = write_shards(tmp_path, _specs(tensors), tensors.__getitem__, 850)
    sizes = [sum(t.nbytes for t in load_file(path).values()) for path in files]
    assert sizes == [800] * 5 + [4000]


def test_a_tensor_is_made_only_when_its_bytes_are_written(tmp_path: Path) -> None:
    alive: list[Any] = []

    def produce(name: str) -> torch.Tensor:
        import weakref

        assert sum(ref() is not None for ref in alive) <= 1  # the one before may linger
        tensor = torch.zeros(10)
        alive.append(weakref.ref(tensor))
        return tensor

    specs = [TensorSpec(str(i), torch.float32, (10,)) for i in range(20)]
    write_shards(tmp_path, specs, produce, 10**9)
    assert len(alive) == 20


def test_an_index_that_names_a_missing_file_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, _specs(TENSORS), TENSORS.__getitem__, 1)
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(ExportError, match="incomplete"):
        ShardReader(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]"])
def test_a_file_that_is_no_safetensors_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ExportError, match="damaged or cut short"):
        ShardReader(tmp_path)


def test_quantized_storage_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pytest.raises(ExportError, match="F8_E4M3"):
        ShardReader(tmp_path)


@pytest.mark.parametrize("text", ["", "2 apples", "-1GB", "0MB", "GB"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ExportError, match="no size"):
        parse_size(text)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """A real fault: the system refuses files above 64 KiB."""
    code = textwrap.dedent(
        f"""
        import resource, signal, sys, torch
        from pathlib import Path
        from elysia.core.errors import ExportError
        from elysia.core.files import staged_folder
        from elysia.export.shards import TensorSpec, write_shards
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        try:
            with staged_folder(Path({str(tmp_path)!r}) / "out") as staging:
                spec = [TensorSpec("a", torch.float32, (65536,))]
                write_shards(staging, spec, lambda _: torch.zeros(65536), 10**9)
        except ExportError as error:
            print(error)
            sys.exit(7)
        """
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 7, process.stderr
    assert "the disk is full" in process.stdout and str(tmp_path / "out") in process.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_kill_in_mid_write_leaves_no_half_folder(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import time, torch
        from pathlib import Path
        from elysia.core.files import staged_folder
        from elysia.export.shards import TensorSpec, write_shards
        def slow(name):
            if name == "b":
                print("half", flush=True)
                time.sleep(60)
            return torch.zeros(1000)
        with staged_folder(Path({str(tmp_path)!r}) / "out") as staging:
            write_shards(staging, [TensorSpec(n, torch.float32, (1000,)) for n in "ab"], slow, 1)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "half\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.iterdir())) == 1  # what was being built, hidden
    with staged_folder(tmp_path / "out") as staging:
        (staging / "x").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
