"""`python -m elysia ...`: the command line, under whichever interpreter runs it."""

import sys

from elysia.cli import main

if __name__ == "__main__":
    sys.exit(main())
