"""Output of the command line: printing, colours, logging to stderr, and the look of every parser's help."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from argparse import ArgumentParser, HelpFormatter
from collections.abc import Callable
from typing import TextIO

COLOURS = {"green": "32", "red": "31", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}


def say(text: str = "", *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print to stdout (or `file`) and flush, so that pipes and streaming replies see it at once."""
    print(text, end=end, file=file, flush=True)


def warn(text: str) -> None:
    """Print to stderr."""
    say(text, file=sys.stderr)


def use_colour(stream: TextIO | None = None) -> bool:
    """Whether to print colours: on a terminal or with FORCE_COLOR, never with NO_COLOR (no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream or sys.stdout).isatty()


def paint(text: str, colour: str) -> str:
    """`text` in a colour of COLOURS where stdout shows colours, else as it is."""
    return f"\033[{COLOURS[colour]}m{text}\033[0m" if text and use_colour() else text


class PlainFormatter(logging.Formatter):
    """Info lines as they are; warnings and errors with their level in front."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current sys.stderr, which a test or a notebook may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up_output() -> None:
    """Log the package's messages to stderr, and replace characters that a stream cannot encode."""
    hush_libraries()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    logger = logging.getLogger("elysia")
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        handler = StderrHandler(sys.stderr)
        handler.setFormatter(PlainFormatter())
        logger.addHandler(handler)
    logger.setLevel(os.environ.get("ELYSIA_LOG", "INFO").upper())


# Libraries log these at every import, and nobody could act on them.
NOISE = ("Setting accelerator to CPU", "Failed to load CPU gemm_4bit_forward")


def is_worth_logging(record: logging.LogRecord) -> bool:
    """A logging filter against NOISE."""
    return not str(record.msg).startswith(NOISE)


def hush_libraries() -> None:
    """Keep the log lines and warnings of libraries out of the output, except with ELYSIA_DEBUG=1.

    DeepSpeed logs to stdout, where its lines would mix with the output that a pipe reads.
    """
    if os.environ.get("ELYSIA_DEBUG", "0") not in ("", "0"):
        return
    for name in ("DeepSpeed", "bitsandbytes.backends.cpu.ops"):
        logger = logging.getLogger(name)
        if is_worth_logging not in logger.filters:
            logger.addFilter(is_worth_logging)
    libraries = r"(torch|transformers|peft|accelerate|deepspeed|bitsandbytes|mmengine)\b"
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=libraries)


class WideHelpFormatter(HelpFormatter):
    """argparse's help at a fixed width, so that docs/cli.md does not depend on a terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=100)


def build_parser(
    verb: str, usage: str, description: str, run: Callable[..., int]
) -> ArgumentParser:
    """A parser for `verb`. `usage` is what follows the verb; `run(args)` does the work and returns the exit
    code.
    """
    parser = ArgumentParser(
        prog=f"elysia {verb}",
        usage=f"elysia {verb} {usage}".rstrip(),
        description=description,
        formatter_class=WideHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser
