"""What she was told before she answered: lore, memories, documents, what found no room, the whole prompt.

Knows nothing of how it was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import streamlit as st

from elysia.chat.tree import Conversation, Line
from elysia.core.errors import ElysiaError
from elysia.web.page.reasons import because
from elysia.web.page.visit import Visit
from elysia.web.text import plain

AROUND = 500  # characters of a document before and behind a span
PARTS = ("system", "lore", "memories", "documents", "summary", "talk")


def show(visit: Visit, talk: Conversation, line: Line, receipt: Mapping[str, Any]) -> None:
    """A dialog with a reply's receipt."""

    @st.dialog(visit.say("receipt"), width="medium")
    def dialog() -> None:
        _receipt(visit, line, receipt)

    dialog()


def _receipt(visit: Visit, line: Line, receipt: Mapping[str, Any]) -> None:
    say = visit.say
    if not receipt:
        st.info(say("no_receipt"))
        return
    tokens = receipt["tokens"]
    if len(line.details.get("present", ())) > 1 and line.details.get("reason"):
        st.caption(f"{say('reason')}: {because(visit, line)}")
    st.caption(say("tokens_line", **{key: tokens[key] for key in ("prompt", "context", "reply")}))
    if "prepared" in line.details:
        st.caption(
            say(
                "timing",
                prepared=line.details["prepared"] * 1000,
                tokens=line.details.get("tokens", "–"),
            )
        )
    st.progress(min(1.0, tokens["prompt"] / max(1, tokens["context"])))
    parts = [f"{say(part)} **{tokens[part]}**" for part in PARTS if tokens.get(part)]
    st.markdown("　".join(parts))
    if receipt["left_out"]:
        st.caption(say("left_out", count=receipt["left_out"]))
    if receipt["summary"]:
        st.markdown(f"**{say('summary')}**")
        st.text(receipt["summary"])
    _group(visit, "lore", receipt["lore"], receipt["lore_dropped"], _of_lore)
    _group(visit, "memories", receipt["memories"], receipt["memories_dropped"], _of_memory)
    _group(visit, "documents", receipt["documents"], receipt["documents_dropped"], _of_document)
    if st.toggle(say("whole_prompt"), key=f"whole_prompt_{line.id}"):
        for message in receipt["prompt"]:
            st.caption(message["role"])
            st.code(message["text"], language=None, wrap_lines=True)


def _group(visit: Visit, part: str, entered: list[Any], dropped: list[Any], head: Any) -> None:
    say = visit.say
    if not entered and not dropped:
        return
    st.markdown(f"**{say(part)}**")
    for one in entered:
        with st.container(border=True, gap=None):
            st.caption(plain(head(visit, one)))
            st.text(one["text"])
    if dropped:
        with st.expander(f"{say('dropped')} ({len(dropped)})"):
            for one in dropped:
                st.caption(plain(head(visit, one)))
                st.text(one["text"][:300])


def _of_lore(visit: Visit, one: Mapping[str, Any]) -> str:
    return f"{one['name']} · {one['why']} · {one['tokens']} {visit.say('tokens')}"


def _of_memory(visit: Visit, one: Mapping[str, Any]) -> str:
    day = time.strftime("%Y-%m-%d", time.localtime(one["at"]))
    score, tokens = visit.say("score", score=one["score"]), visit.say("tokens")
    return f"{day} · {score} · {one['why']} · {one['tokens']} {tokens}"


def _of_document(visit: Visit, one: Mapping[str, Any]) -> str:
    number = f"[{one['number']}] " if one["number"] else ""
    place = " · ".join(filter(None, [one["heading"], f"p. {one['page']}" if one["page"] else ""]))
    return (
        f"{number}{one['name']} {place} · {visit.say('score', score=one['score'])} · {one['why']} · "
        f"{one['tokens']} {visit.say('tokens')}"
    )


def source(visit: Visit, speaker: str, one: Mapping[str, Any]) -> None:
    """A dialog with the document around a cited span, the span set off."""

    @st.dialog(plain(f"[{one['number']}] {one['name']}", 80), width="medium")
    def dialog() -> None:
        if one["heading"]:
            st.caption(plain(one["heading"]))
        before, behind = _around(visit, speaker, one)
        if before:
            st.text("…" + before)
        with st.container(key=f"cited_{one['number']}"):
            st.text(one["text"])
        if behind:
            st.text(behind + "…")

    dialog()


def _around(visit: Visit, speaker: str, one: Mapping[str, Any]) -> tuple[str, str]:
    """What stands before and behind a span; nothing when the document has gone or changed."""
    knowledge = visit.service.surroundings.knowledge
    for shelf in visit.service.surroundings.shelves(visit.user, speaker) if knowledge else ():
        try:
            text = knowledge.text(shelf, one["document_id"]) if knowledge else ""
        except ElysiaError:
            continue
        start, end = one["start"], one["end"]
        if text[start:end].strip() == one["text"].strip():
            return text[max(0, start - AROUND) : start], text[end : end + AROUND]
    return "", ""
