"""The C library's heap under many threads.

glibc gives threads arenas of their own, up to eight for each core, and memory that was freed in one is not
used by another: a service with many threads then holds several times what it needs. Python's lock lets one
thread at a time allocate anyhow, so that few arenas cost nothing.
"""

from __future__ import annotations

import ctypes
import os

MAX_ARENAS = 2
M_ARENA_MAX = -8  # the parameter's number for mallopt(3) of glibc


def limit_malloc_arenas() -> bool:
    """Let threads that begin later share MAX_ARENAS arenas; whether the C library accepted that.

    MALLOC_ARENA_MAX in the environment has precedence.
    """
    if os.environ.get("MALLOC_ARENA_MAX"):
        return False
    try:
        glibc = ctypes.CDLL(None)
        _ = glibc.gnu_get_libc_version  # another C library's mallopt has other numbers
        return bool(glibc.mallopt(M_ARENA_MAX, MAX_ARENAS))
    except (OSError, AttributeError, TypeError):  # another C library, or linked statically
        return False
