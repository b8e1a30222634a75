"""Which process writes a reply, told so that another one, later, can see whether it still lives.

Knows nothing of conversations.
"""

from __future__ import annotations

import os


def get_process_token() -> str:
    """This process as HOST:NUMBER:BEGAN."""
    return f"{os.uname().nodename}:{os.getpid()}:{_get_start_time(os.getpid())}"


def is_alive(writer: str) -> bool:
    """Whether the process that a reply names is alive; one of another machine is taken to be."""
    parts = writer.rsplit(":", 2)
    if len(parts) != 3 or not parts[1].isdigit():
        return False
    host, process, started = parts
    if host != os.uname().nodename:
        return True
    return _get_start_time(int(process)) == started


def _get_start_time(process: int) -> str:
    """When a process began, in the kernel's ticks: a number may be used again, with its time never.

    '' when it is not running; '0' where the system does not say.
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
