# streamlit run web_demo/app.py [-- --model FOLDER|FILE.gguf|URL --adapter FOLDER ...]
"""The Streamlit page. What follows `--` may also stand in the environment: ELYSIA_MODEL and so on."""

import sys
from pathlib import Path

import streamlit as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where elysia is not installed

from elysia.web import page
from elysia.web.server import around
from elysia.web.site import home_of, open_site

home = home_of(sys.argv[1:])
script = Path(page.__file__).with_name("script.py")
app = st.App(script, **around(lambda: open_site(home), lambda: st.get_option("server.address")))
