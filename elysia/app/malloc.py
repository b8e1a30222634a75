"""The C library's heap under many threads.

glibc gives every few threads an arena of their own, eight a core, and what was freed in one is not
used by another: a service of many threads holds several times what it uses. Python's lock lets one
thread at a time allocate anyhow, so that few arenas cost nothing. Knows nothing of the service.
"""

from __future__ import annotations

import ctypes
import os

MAX_ARENAS = 2
M_ARENA_MAX = -8  # of mallopt(3), glibc


def limit_malloc_arenas() -> bool:
    """Let threads that begin later share ARENAS arenas; whether the C library takes that.

    MALLOC_ARENA_MAX in the environment is left as it is.
    """
    if os.environ.get("MALLOC_ARENA_MAX"):
        return False
    try:
        glibc = ctypes.CDLL(None)
        _ = glibc.gnu_get_libc_version  # mallopt's numbers are other ones elsewhere
        return bool(glibc.mallopt(M_ARENA_MAX, MAX_ARENAS))
    except (OSError, AttributeError, TypeError):  # another C library, or none that is loaded so
        return False
