"""`python -m elysia.data.pool_child`: the process at the other end of workers.py's pipes.

Reads a pickled function from stdin, then its arguments one by one, and answers each on stdout with
its result or its exception, until stdin ends. Imports neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys


def main() -> None:
    """Work until stdin ends."""
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    work = pickle.load(sys.stdin.buffer)
    gc.freeze()  # what is there now stays, and need not be looked through again and again
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            part = pickle.load(sys.stdin.buffer)
            try:
                result = work(part)
            except Exception as error:
                result = error
            pickle.dump(result, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


if __name__ == "__main__":
    main()
