"""Say a text: `python tts/say.py TEXT --voice NAME -o out.wav`, the same as `elysia voice say`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elysia.cli import main

if __name__ == "__main__":
    sys.exit(main(["voice", "say", *sys.argv[1:]]))
