# python web_demo/gradio_app.py [--model FOLDER|FILE.gguf|URL --adapter FOLDER ...]
"""The Gradio page. Its flags may also be set in the environment: ELYSIA_MODEL and so on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where elysia is not installed

from elysia.core.errors import ElysiaError
from elysia.web.app_state import open_app_state, parse_arguments
from elysia.web.gradio_page import launch

try:
    site = open_app_state(parse_arguments(sys.argv[1:]))
    try:
        launch(site)
    finally:
        site.close()
except ElysiaError as error:
    sys.exit(str(error))
