"""LMDeploy's servers as children: refused in plain words, waited for, ended."""

import socket
import sys
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="requirements/serve.lock is not installed")

from elysia.cli import main
from elysia.core.errors import DeviceError
from elysia.engines import lmdeploy


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def test_an_absent_environment_and_one_without_lmdeploy_are_sentences(tmp_path, capsys):
    assert main(["lmdeploy", "serve", str(tmp_path), "--python", str(tmp_path / "python")]) == 1
    assert "make lmdeploy" in capsys.readouterr().err
    with pytest.raises(DeviceError, match="has no LMDeploy"):
        lmdeploy.require_lmdeploy(Path(sys.executable))


@pytest.mark.skipif(Path("/proc/driver/nvidia/gpus").exists(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_what_serves_instead(tiny_llama, monkeypatch):
    monkeypatch.setattr(lmdeploy, "require_lmdeploy", lambda python: None)
    with pytest.raises(DeviceError, match="elysia quantize gguf"):
        lmdeploy.build_server_command(Path("python"), tiny_llama, port=1)


def test_the_command_is_lmdeploys(tiny_llama, monkeypatch):
    monkeypatch.setattr(lmdeploy, "require_lmdeploy", lambda python: None)
    monkeypatch.setattr(lmdeploy, "require_gpus", lambda count: None)
    command = lmdeploy.build_server_command(
        Path("python"), tiny_llama, port=5, tp=2, quant_policy="4", cache=0.4, model_format="awq"
    )
    assert command[:6] == ["python", "-m", "lmdeploy", "serve", "api_server", str(tiny_llama)]
    text = " ".join(command)
    for part in (
        "--server-name 127.0.0.1", "--server-port 5", "--tp 2", "--quant-policy int4",
        "--cache-max-entry-count 0.4", "--model-format awq", "--model-name llama",
    ):  # fmt: skip
        assert part in text


def test_a_child_is_waited_for_and_ended(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with lmdeploy.ServerProcess(command, port, timeout=30, path="/") as server:
        child = server._child
        assert child.poll() is None
    assert child.poll() is not None


def test_a_child_that_ends_or_never_answers_is_a_sentence():
    quits = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(DeviceError, match="code 3"):
        lmdeploy.ServerProcess(quits, free_port(), timeout=30).__enter__()
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(DeviceError, match="did not answer"):
        lmdeploy.ServerProcess(sleeps, free_port(), timeout=0.3).__enter__()
