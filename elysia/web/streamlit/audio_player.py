"""The character's voice in the browser: one player, which plays the replies of a turn one after the other.

Each reply's audio is a stream of its own (`middleware.speak`); leaving it silences the voice. Only the
window in which somebody wrote plays by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from elysia.chat.message_tree import ChatMessage
from elysia.web.middleware import build_voice_url
from elysia.web.streamlit.context import PageContext, read_asset

SPEAKING = "speaking"


def start_playing(conversation: str, reply: str, *, alone: bool = False) -> None:
    """Play a reply in this window and, unless `alone`, those that follow it in the same turn."""
    number = st.session_state.get("spoken", 0) + 1
    st.session_state["spoken"] = number
    st.session_state[SPEAKING] = {
        "talk": conversation, "reply": reply, "alone": alone, "begun": number,
    }  # fmt: skip


def stop_playing() -> None:
    """Play nothing any more."""
    st.session_state.pop(SPEAKING, None)


def show_player(page: PageContext, conversation: str, messages: Sequence[ChatMessage]) -> None:
    """The player, when there is something to play."""
    speaking = st.session_state.get(SPEAKING)
    ids = [message.id for message in messages if message.role == "assistant"]
    if not speaking or speaking["talk"] != conversation or speaking["reply"] not in ids:
        return
    playing = ids[ids.index(speaking["reply"]) :]
    if speaking["alone"]:
        playing = playing[:1]
    queue = [build_voice_url(page.state, page.user, conversation, id) for id in playing]
    with st.bottom:
        st.components.v2.component(
            "elysia_player", html="<audio controls></audio>", js=read_asset("player.js"),
            css="audio { width: 100%; height: 2.2rem }",
        )(data={"queue": queue, "begun": speaking["begun"]}, key="player")  # fmt: skip
