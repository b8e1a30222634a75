"""The Streamlit page; `ENTRY` is the script that Streamlit runs for every look at it."""

from pathlib import Path

__all__ = ["ENTRY"]

ENTRY = Path(__file__).with_name("entry.py")
