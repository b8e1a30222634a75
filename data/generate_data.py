"""python data/generate_data.py --name 小满 --author 我 --repeat 200 --output data/self.json
python data/generate_data.py card configs/personas/elysia.json --output data/identity.json
python data/generate_data.py script SCRIPT --character NAME --output DIR

Arguments only: the rows are made in elysia/data/synthesis/persona_rows.py, and elysia/data/script.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs in a checkout, installed or not

from elysia.core.errors import ElysiaError, UsageError
from elysia.core.persona import Persona
from elysia.data.synthesis.persona_rows import (
    example_rows,
    identity_rows,
    self_cognition_rows,
    write_rows,
)


def parser(card: bool) -> argparse.ArgumentParser:
    """The arguments of `card CARD.json ...`, or of the self-cognition set."""
    arguments = argparse.ArgumentParser(
        prog="generate_data.py card" if card else "generate_data.py",
        description="Identity rows of a character card."
        if card
        else "Self-cognition rows of an assistant. `card CARD.json` makes those of a character.",
    )
    if card:
        arguments.add_argument("card", help="a character card (V1, V2 or V3, JSON)")
    else:
        arguments.add_argument("--name", required=True, help="what the assistant is called")
        arguments.add_argument("--author", required=True, help="who made it")
        arguments.add_argument(
            "--repeat", type=int, default=200, help="rows to write (default 200)"
        )
    arguments.add_argument("--output", required=True, help="the file to write (.json)")
    arguments.add_argument("--force", action="store_true", help="replace the file if it exists")
    return arguments


def main(argv: list[str]) -> int:
    """Write the rows; the exit code."""
    if argv[:1] == ["script"]:
        from elysia import cli

        return cli.main(["data", *argv])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    card = argv[:1] == ["card"]
    args = parser(card).parse_args(argv[1:] if card else argv)
    try:
        if card:
            persona = Persona.load(args.card)
            rows = identity_rows(persona) + example_rows(persona)
        else:
            rows = self_cognition_rows(args.name, args.author, args.repeat)
        path = write_rows(rows, args.output, force=args.force)
    except ElysiaError as error:
        logging.error("%s", error)
        return 2 if isinstance(error, UsageError) else 1
    logging.info("%s: %d rows.", path, len(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
