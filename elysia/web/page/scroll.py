"""The newest line stays in view: after a message, and while a reply grows, unless one reads above.

Knows nothing of what the lines say.
"""

from __future__ import annotations

import streamlit as st

_SCRIPT = """
export default function ({ data, parentElement }) {
  const last = () => [...document.querySelectorAll('[data-testid="stChatMessage"]')].at(-1);
  const show = () => last()?.scrollIntoView({ block: "end" });
  const near = () => (last()?.getBoundingClientRect().bottom ?? 0) < window.innerHeight + 260;
  if (parentElement.elysia !== data.seen) {
    parentElement.elysia = data.seen;
    for (const wait of [0, 200, 600]) setTimeout(show, wait);
  }
  if (!data.busy) return;
  const watch = setInterval(() => near() && show(), 250);
  return () => clearInterval(watch);
}
"""


def follow(seen: str, busy: bool) -> None:
    """Go to the end when `seen` is another than before; stay there while somebody writes."""
    component = st.components.v2.component("elysia_scroll", html="<span></span>", js=_SCRIPT)
    with st.container(key="scroll"):
        component(data={"seen": seen, "busy": busy}, key="scroller", height=1)
