"""The pages, over the chat service: Streamlit (`streamlit`) and Gradio (`gradio_page`).

`open_app_state` opens what a page is served from; `app_options` is what Streamlit takes beside its script.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elysia.web.app_state import AppState, open_app_state
    from elysia.web.middleware import app_options

__all__ = ["AppState", "app_options", "open_app_state"]

_HOMES = {"AppState": "app_state", "app_options": "middleware", "open_app_state": "app_state"}


def __getattr__(name: str) -> Any:
    # Imported on first use: Starlette, Streamlit and Gradio are optional.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
