"""The Gradio page over the stand-in engine. FOLDER holds its data."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from elysia.web.gradio_page import launch
from tests.web.stand_in import open_stand_in

if __name__ == "__main__":
    launch(open_stand_in(Path(sys.argv[1])))
