"""The Streamlit page over a stand-in engine, for browser tests and screenshots. FOLDER holds its data."""

import sys
from pathlib import Path

import streamlit as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from elysia.web.middleware import app_options
from elysia.web.streamlit import ENTRY
from tests.web.stand_in import open_stand_in

app = st.App(
    ENTRY,
    **app_options(
        lambda: open_stand_in(Path(sys.argv[1])), lambda: st.get_option("server.address")
    ),
)
