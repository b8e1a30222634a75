"""A Python that has imported what training needs, and forks a child for each command that it is asked to run.

Importing torch, transformers, mmengine and DeepSpeed takes fifteen seconds of a core, ten times what the
steps of a test's training take. A child is a process like any other: it is killed, exits and holds its own
environment, working folder and output as one that was started anew.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

MODULES = (
    "elysia.cli.train",
    "elysia.train.launch",
    "elysia.models.loading",
    "elysia.train.config.builder",
    "elysia.train.hooks.evaluation_hooks",
    "elysia.train.methods.sft",
    "peft",
    "deepspeed",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "torch.utils.tensorboard",
)


class Preloaded:
    """The Python, seen from the tests. One request is answered at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, *arguments: str, output: Path, env: Mapping[str, str] | None = None) -> Child:
        """What `python ARGUMENTS` starts (`-m MODULE` or a script), with both outputs in a file."""
        request = {
            "arguments": arguments,
            "env": {**os.environ, **(env or {})},
            "cwd": os.getcwd(),
            "output": str(output),
        }
        return Child(self, self.ask(request))

    def ask(self, request: object) -> int:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Child:
    """A process that was forked: of subprocess.Popen's names, those that tests use."""

    def __init__(self, parent: Preloaded, pid: int) -> None:
        self._parent, self.pid = parent, pid
        self._exit = os.pidfd_open(pid)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._exit], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._exit], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = self._parent.ask({"wait": self.pid})
            os.close(self._exit)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@contextmanager
def preloaded() -> Iterator[Preloaded]:
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield Preloaded(process)
    finally:
        process.kill()
        process.communicate()


def serve() -> None:
    """Answer requests, a JSON object a line, until the input ends. Returns in a child, which runs its own."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for module in MODULES:
        import_module(module)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, "a fork keeps one thread, and locks that others hold stay locked"
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                answers.close()
                return run(**request)
        print(answer, file=answers, flush=True)
    os._exit(0)


def run(arguments: list[str], env: dict[str, str], cwd: str, output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(descriptor, target)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve()
