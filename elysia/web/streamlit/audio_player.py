"""Her voice in the browser: one player, which plays the replies of a round one after the other.

A reply's sound is a stream of its own (see `server.speak`); to leave it is to silence it. Only the
window in which somebody wrote plays by itself. Knows nothing of voices.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from elysia.chat.message_tree import ChatMessage
from elysia.web.middleware import build_voice_url
from elysia.web.streamlit.context import PageContext

SPEAKING = "speaking"
_SCRIPT = """
export default function ({ data, parentElement }) {
  const audio = parentElement.querySelector("audio");
  const state = (parentElement.elysia ??= { begun: null, next: 0, queue: [] });
  const play = () => {
    if (state.next >= state.queue.length) return;
    audio.src = state.queue[state.next++];
    audio.play().catch(() => {});
  };
  audio.onended = audio.onerror = play;
  const fresh = state.begun !== data.begun;
  const idle = audio.ended || audio.error || !audio.getAttribute("src");
  state.queue = data.queue;
  if (fresh) { state.begun = data.begun; state.next = 0; play(); }
  else if (idle) play();
  return () => { audio.pause(); audio.removeAttribute("src"); audio.load(); };
}
"""


def start_playing(talk: str, reply: str, *, alone: bool = False) -> None:
    """Let this window hear a reply and, unless it is wanted `alone`, those that follow in its round."""
    number = st.session_state.get("spoken", 0) + 1
    st.session_state["spoken"] = number
    st.session_state[SPEAKING] = {"talk": talk, "reply": reply, "alone": alone, "begun": number}


def stop_playing() -> None:
    """Nothing is heard any more."""
    st.session_state.pop(SPEAKING, None)


def show_player(visit: PageContext, talk: str, shown: Sequence[ChatMessage]) -> None:
    """The player, when there is something to hear."""
    speaking = st.session_state.get(SPEAKING)
    ids = [line.id for line in shown if line.role == "assistant"]
    if not speaking or speaking["talk"] != talk or speaking["reply"] not in ids:
        return
    heard = ids[ids.index(speaking["reply"]) :]
    if speaking["alone"]:
        heard = heard[:1]
    queue = [build_voice_url(visit.site, visit.user, talk, id) for id in heard]
    with st.bottom:
        st.components.v2.component(
            "elysia_player", html="<audio controls></audio>", js=_SCRIPT,
            css="audio { width: 100%; height: 2.2rem }",
        )(data={"queue": queue, "begun": speaking["begun"]}, key="player")  # fmt: skip
