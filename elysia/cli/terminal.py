"""The terminal of a conversation: messages typed or piped in, Ctrl-C, and text made safe to show."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from elysia.cli.output import say, warn

WIDTH = 400  # characters of a text that lists and reports show
INPUT_PROMPT = "double enter to end input (EXIT: exit chat, RESET: reset history) >>> "


def escape_unprintable(text: str, width: int = WIDTH) -> str:
    """`text` on one line of at most `width` characters, with control characters spelled out.

    Cards and documents come from strangers; a raw escape sequence could move the cursor or the title.
    """
    line = " ".join(text.split())
    safe = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line[:width])
    return safe + ("..." if len(line) > width else "")


def strip_control_characters(text: str) -> str:
    """`text` without the characters that would control a terminal; line breaks stay."""
    return "".join(c for c in text if c.isprintable() or c == "\n")


def show_finish(finish: str | None) -> None:
    """Say on stderr why a reply ended early: `finish` is "cancelled", "length" or anything else."""
    if finish == "cancelled":
        warn("(stopped)")
    elif finish == "length":
        warn("(cut short: --max-new-tokens or the context's end)")


@contextmanager
def catch_interrupts() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; a second one raises KeyboardInterrupt as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread gets signals
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def enable_line_editing() -> None:
    """Arrow keys and history for input(), where the platform has them."""
    with suppress(ImportError):
        import readline  # noqa: F401


def iter_messages() -> Iterator[str]:
    """The user's messages: from a terminal until Ctrl-D, from a pipe every line that is not empty."""
    if sys.stdin.isatty():
        yield from iter_typed_messages()
        return
    for line in sys.stdin:
        if line.strip():
            yield line.rstrip("\r\n")


def iter_typed_messages() -> Iterator[str]:
    """Messages from the terminal, each ended by an empty line; RESET and EXIT need none.

    The first Ctrl-C at the prompt drops what was typed and says how to leave; a second one in a row
    raises KeyboardInterrupt.
    """
    interrupted = False
    while True:
        try:
            text = _read_typed_message()
        except EOFError:
            say()
            return
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            warn("\n(Ctrl-C again leaves, and so does EXIT.)")
            continue
        interrupted = False
        if text.strip():
            yield text


def _read_typed_message() -> str:
    """Lines up to an empty one. Raises EOFError at Ctrl-D when nothing was typed before it."""
    lines: list[str] = []
    say()
    while True:
        # input() must print the prompt itself, or line editing would draw over it.
        prompt = "" if lines else INPUT_PROMPT
        try:
            line = input(prompt)
        except EOFError:
            if not lines:
                raise
            return "\n".join(lines)
        if not line:
            return "\n".join(lines)
        lines.append(line)
        if len(lines) == 1 and line.strip() in ("EXIT", "RESET"):
            return line
