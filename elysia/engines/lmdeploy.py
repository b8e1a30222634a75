"""LMDeploy's servers as child processes: command lines, health checks, restarting and stopping.

LMDeploy is another program in its own environment. Its servers are reached through engines/openai.py.
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
from elysia.export.chat_template import TEMPLATE_FILE

log = logging.getLogger(__name__)

QUANT_POLICIES = {"4": "int4", "8": "int8"}
STOP_TIMEOUT = 20.0  # seconds for a child to end after SIGTERM, before it is killed


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
    """api_server's command line, on loopback.

    Raises DeviceError when the environment or GPUs are missing, ModelError for a folder that is no
    model, or one without the chat template that its run card names.
    """
    require_lmdeploy(python)
    if not (model / "config.json").is_file():
        raise ModelError("models.no_config", folder=model)
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
    card, template = RunCard.read(model), model / TEMPLATE_FILE
    if card and card.template and not template.is_file():
        raise ModelError("engines.no_chat_template", folder=model, file=TEMPLATE_FILE)
    return command


def build_proxy_command(python: Path, *, port: int, strategy: str) -> list[str]:
    """The proxy's command line, on loopback."""
    require_lmdeploy(python)
    return [
        str(python), "-m", "lmdeploy", "serve", "proxy", "--server-name", "127.0.0.1",
        "--server-port", str(port), "--routing-strategy", strategy,
    ]  # fmt: skip


def require_lmdeploy(python: Path) -> None:
    """DeviceError when LMDeploy's environment does not exist, or does not hold LMDeploy."""
    if not python.is_file():
        raise DeviceError("engines.no_lmdeploy_environment", python=python)
    probe = subprocess.run(
        [
            str(python),
            "-c",
            "import importlib.util as u; raise SystemExit(not u.find_spec('lmdeploy'))",
        ],
        capture_output=True,
    )
    if probe.returncode:
        raise DeviceError("engines.no_lmdeploy", python=python)


def require_gpus(count: int) -> None:
    """DeviceError when this machine has fewer than `count` NVIDIA GPUs."""
    present = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if present < count:
        raise DeviceError("engines.too_few_gpus", count=count, present=present)


class ServerProcess:
    """A child process that serves HTTP on loopback: a context manager that starts and stops it.

    Raises DeviceError when it ends before it answers, or does not answer within `timeout` seconds.
    """

    def __init__(
        self, command: Sequence[str], port: int, *, timeout: float, path: str = "/health"
    ) -> None:
        self._command = list(command)
        self._url = f"http://127.0.0.1:{port}{path}"
        self._timeout = timeout
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerProcess:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def watch(self, pause: float = 1.0) -> None:
        """Restart the child whenever it dies, until SIGINT or SIGTERM.

        Raises DeviceError for a child that dies within ten seconds of its first answer, since it would
        only die again.
        """
        before = signal.signal(signal.SIGTERM, _raise_interrupt)
        began = time.monotonic()
        try:
            while True:
                assert self._child is not None
                code = self._child.poll()
                if code is not None:
                    if time.monotonic() - began < 10:
                        raise DeviceError("engines.lmdeploy_ended_at_once", code=code)
                    log.warning("LMDeploy ended with code %s and is restarted.", code)
                    self._start()
                    began = time.monotonic()
                time.sleep(pause)
        except KeyboardInterrupt:
            log.info("Stopping LMDeploy.")
        finally:
            signal.signal(signal.SIGTERM, before)

    def _start(self) -> None:
        # A process group of its own, so that its workers can be ended with it.
        self._child = subprocess.Popen(self._command, start_new_session=True)
        until = time.monotonic() + self._timeout
        try:
            while not self._answers():
                code = self._child.poll()
                if code is not None:
                    raise DeviceError("engines.lmdeploy_ended", code=code)
                if time.monotonic() > until:
                    raise DeviceError("engines.lmdeploy_silent", seconds=self._timeout)
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
