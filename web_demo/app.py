# streamlit run web_demo/app.py [-- --model FOLDER|FILE.gguf|URL --adapter FOLDER ...]
"""The Streamlit page. Its flags may also be set in the environment: ELYSIA_MODEL and so on."""

import sys
from pathlib import Path

import streamlit as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where elysia is not installed

from elysia.web.app_state import open_app_state, parse_arguments
from elysia.web.middleware import app_options
from elysia.web.streamlit import ENTRY

home = parse_arguments(sys.argv[1:])
app = st.App(
    ENTRY, **app_options(lambda: open_app_state(home), lambda: st.get_option("server.address"))
)
