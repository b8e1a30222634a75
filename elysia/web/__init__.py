"""The pages, over the chat service: Streamlit (`streamlit`) and Gradio (`gradio_page`).

`open_app_state` opens what a page is served from; `app_options` is what Streamlit takes beside its script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elysia.core.lazy_imports import build_getattr

if TYPE_CHECKING:
    from elysia.web.app_state import AppState, open_app_state
    from elysia.web.middleware import app_options

__all__ = ["AppState", "app_options", "open_app_state"]

_MODULES = {"AppState": "app_state", "app_options": "middleware", "open_app_state": "app_state"}

# Imported on first use: Starlette, Streamlit and Gradio are optional.
__getattr__ = build_getattr(__name__, _MODULES)
