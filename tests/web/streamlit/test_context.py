"""What was typed or pressed is carried out, though the next click has come."""

from __future__ import annotations

import pytest

pytest.importorskip("streamlit", reason="Streamlit is not installed")

from streamlit.runtime.state import SafeSessionState, SessionState, session_state_proxy

from elysia.web.streamlit.context import read_widget


class RunInterrupted(BaseException):
    """As Streamlit ends a run for the sake of the next click."""


@pytest.fixture
def overtaken(monkeypatch):
    """A session whose next click has come."""

    def end_here():
        raise RunInterrupted

    state = SessionState()
    state["words"] = "a dog called Momo"
    session = SafeSessionState(state, yield_callback=end_here)
    monkeypatch.setattr(session_state_proxy, "get_session_state", lambda: session)


def test_a_callback_reads_what_a_widget_holds_without_being_ended_by_the_next_click(overtaken):
    import streamlit as st

    with pytest.raises(RunInterrupted):  # the fault that is gone around
        st.session_state["words"]
    assert read_widget("words") == "a dog called Momo"
    assert read_widget("nothing") is None
