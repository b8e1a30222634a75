"""Which process writes a reply, as a text from which another process can see later whether it still runs."""

from __future__ import annotations

import os


def get_process_token() -> str:
    """This process as HOST:PID:START."""
    return f"{os.uname().nodename}:{os.getpid()}:{_get_start_time(os.getpid())}"


def is_alive(writer: str) -> bool:
    """Whether the process of a token still runs; one of another machine is taken to."""
    parts = writer.rsplit(":", 2)
    if len(parts) != 3 or not parts[1].isdigit():
        return False
    host, process, started = parts
    if host != os.uname().nodename:
        return True
    return _get_start_time(int(process)) == started


def _get_start_time(process: int) -> str:
    """When a process began, in the kernel's ticks: a PID may be reused, but not with the same start.

    '' when it is not running; '0' where the system does not say when it began.
    """
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return ""
    try:
        os.kill(process, 0)
    except OSError:
        return ""
    return "0"
