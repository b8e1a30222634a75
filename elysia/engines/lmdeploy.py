"""LMDeploy's servers as child processes: their command lines, their health, their end.

LMDeploy is another program in another environment; what it serves is reached by engines/openai.py.
Knows nothing of requests.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import httpx

from elysia.core.errors import DeviceError, ModelError
from elysia.core.run_card import RunCard
from elysia.export.chat_template import TEMPLATE_FILE as TEMPLATE

log = logging.getLogger(__name__)

QUANT_POLICIES = {"4": "int4", "8": "int8"}
STOP_TIMEOUT = 20.0  # seconds for a child to end by itself


def build_server_command(
    python: Path,
    model: Path,
    *,
    port: int,
    name: str | None = None,
    tp: int = 1,
    backend: str | None = None,
    model_format: str | None = None,
    quant_policy: str = "0",
    cache: float | None = None,
    session_len: int | None = None,
) -> list[str]:
    """api_server's command line, on loopback, with the template that the run card names.

    Raises a sentence for an environment, a GPU or a model that is not there.
    """
    require_lmdeploy(python)
    if not (model / "config.json").is_file():
        raise ModelError(f"{model} has no config.json: it is no model folder. Check the path.")
    require_gpus(tp)
    command = [
        str(python), "-m", "lmdeploy", "serve", "api_server", str(model),
        "--server-name", "127.0.0.1", "--server-port", str(port),
        "--model-name", name or model.resolve().name,
        "--tp", str(tp),
        "--quant-policy", QUANT_POLICIES.get(quant_policy, quant_policy),
    ]  # fmt: skip
    for flag, value in (
        ("--backend", backend),
        ("--model-format", model_format),
        ("--cache-max-entry-count", cache),
        ("--session-len", session_len),
    ):
        if value is not None:
            command += [flag, str(value)]
    card, template = RunCard.read(model), model / TEMPLATE
    if card and card.template and not template.is_file():
        raise ModelError(
            f"{model} has a run card with a template and no {TEMPLATE}, which LMDeploy reads. Merge it "
            "again with this version."
        )
    return command


def build_proxy_command(python: Path, *, port: int, strategy: str) -> list[str]:
    """The proxy's command line, on loopback."""
    require_lmdeploy(python)
    return [
        str(python), "-m", "lmdeploy", "serve", "proxy", "--server-name", "127.0.0.1",
        "--server-port", str(port), "--routing-strategy", strategy,
    ]  # fmt: skip


def require_lmdeploy(python: Path) -> None:
    """DeviceError when LMDeploy's environment has not been made, or is no such environment."""
    if not python.is_file():
        raise DeviceError(
            f"There is no {python}: LMDeploy's own environment has not been made. Make it with: "
            "make lmdeploy"
        )
    found = subprocess.run(
        [
            str(python),
            "-c",
            "import importlib.util as u; raise SystemExit(not u.find_spec('lmdeploy'))",
        ],
        capture_output=True,
    )
    if found.returncode:
        raise DeviceError(f"{python} has no LMDeploy. Make its environment with: make lmdeploy")


def require_gpus(count: int) -> None:
    """DeviceError when fewer than `count` NVIDIA GPUs are there."""
    there = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if there < count:
        raise DeviceError(
            f"LMDeploy serves on NVIDIA GPUs only; {count} asked for, {there} on this machine. On a "
            "CPU: elysia quantize gguf MODEL, then elysia serve MODEL.q4_k_m.gguf"
        )


class ServerProcess:
    """A child that serves HTTP on loopback: started on entering, ended on leaving.

    Raises DeviceError when it ends before it answers, or does not answer in `patience` seconds.
    """

    def __init__(
        self, command: Sequence[str], port: int, *, patience: float, path: str = "/health"
    ) -> None:
        self._command = list(command)
        self._url = f"http://127.0.0.1:{port}{path}"
        self._patience = patience
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerProcess:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def watch(self, pause: float = 1.0) -> None:
        """Start the child again whenever it dies, until SIGINT or SIGTERM; a child that dies within
        ten seconds of answering is let go with DeviceError.
        """
        before = signal.signal(signal.SIGTERM, _raise_interrupt)
        began = time.monotonic()
        try:
            while True:
                assert self._child is not None
                code = self._child.poll()
                if code is not None:
                    if time.monotonic() - began < 10:
                        raise DeviceError(f"LMDeploy ended at once with code {code}; see above.")
                    log.warning("LMDeploy ended with code %s and is started again.", code)
                    self._start()
                    began = time.monotonic()
                time.sleep(pause)
        except KeyboardInterrupt:
            log.info("Stopping LMDeploy.")
        finally:
            signal.signal(signal.SIGTERM, before)

    def _start(self) -> None:
        # A group of its own: its workers end with it.
        self._child = subprocess.Popen(self._command, start_new_session=True)
        until = time.monotonic() + self._patience
        try:
            while not self._answers():
                code = self._child.poll()
                if code is not None:
                    raise DeviceError(f"LMDeploy ended with code {code}; what it said is above.")
                if time.monotonic() > until:
                    raise DeviceError(f"LMDeploy did not answer in {self._patience:.0f} s.")
                time.sleep(0.2)
        except BaseException:
            self._stop()
            raise

    def _answers(self) -> bool:
        try:
            return httpx.get(self._url, timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _stop(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
