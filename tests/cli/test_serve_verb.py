"""`elysia serve` as a process: from a GGUF to a reply, through a killed engine, to a clean end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="requirements/serve.lock is not installed")

import httpx

from elysia.cli import main
from elysia.core.run_card import RunCard
from elysia.core.templates import get_template
from elysia.export import gguf_writer


@pytest.fixture(scope="module")
def file(tiny_llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "tiny.gguf"
    card = RunCard("merged", "base", template=get_template("internlm2_chat").to_dict())
    card.write(tiny_llama)
    try:
        gguf_writer.quantize_gguf(tiny_llama, path, file_type="f16")
    finally:
        (tiny_llama / "run_card.json").unlink()
    return path


def children(pid):
    """Of every thread: the one that notices a dead child starts the next."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(p) for thread in threads for p in (thread / "children").read_text().split()]


def test_a_gguf_is_served_through_a_killed_engine_to_a_clean_end(file):
    process = subprocess.Popen(
        [sys.executable, "-m", "elysia", "serve", str(file), "--port", "0", "--parallel", "2",
         "--context", "512"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = re.search(r"http://[\d.:]+", process.stdout.readline())[0]
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            ask = {"model": "tiny", "messages": [{"role": "user", "content": "你好"}]}
            ask |= {"max_tokens": 8, "temperature": 0}

            def reply():
                answer = client.post("/v1/chat/completions", json=ask)
                assert answer.status_code == 200, answer.text
                return answer.json()["choices"][0]["message"]["content"]

            before = reply()
            (child,) = children(process.pid)
            long = ask | {"max_tokens": 480, "stream": True, "temperature": 1.5, "seed": 1}
            with client.stream("POST", "/v1/chat/completions", json=long) as stream:
                lines = stream.iter_lines()
                next(lines)
                os.kill(child, signal.SIGKILL)
                err = [line for line in lines if line]
            assert "started again" in json.loads(err[-1][6:])["error"]["message"]
            assert reply() == before
            for _ in range(3):
                os.kill(children(process.pid)[0], signal.SIGKILL)
                assert reply() == before
            (child,) = children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) in (0, -signal.SIGTERM)
        until = time.monotonic() + 60
        while Path(f"/proc/{child}").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert not Path(f"/proc/{child}").exists()
    finally:
        process.kill()
        process.wait()


def test_what_cannot_be_served_is_one_sentence(tmp_path, capsys, file):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF\x03\x00")
    for words, sentence in (
        ([str(bad)], "damaged or cut short"),
        ([str(tmp_path / "none.gguf")], "cannot be read"),
        ([str(file), "--host", "0.0.0.0"], "no key"),
        ([f"a={file}", f"a={file}"], "Two models"),
        ([str(file), "--engine", "transformers"], "cannot serve"),
    ):
        assert main(["serve", *words, "--port", "0"]) in (1, 2)
        error = capsys.readouterr().err.strip()
        assert sentence in error and error.count("\n") == 0, error
