"""What she was told before she answered: lore, memories, documents, what found no room, the whole prompt.

Knows nothing of how it was chosen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import streamlit as st

from elysia.chat.message_tree import ChatMessage, Conversation
from elysia.core.errors import ElysiaError
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit.context import PageContext

CONTEXT_CHARACTERS = 500  # characters of a document before and behind a span
PARTS = ("system", "lore", "memories", "documents", "summary", "talk")


def show_breakdown(
    visit: PageContext, talk: Conversation, line: ChatMessage, receipt: Mapping[str, Any]
) -> None:
    """A dialog with a reply's receipt."""

    @st.dialog(visit.say("receipt"), width="medium")
    def dialog() -> None:
        _show_breakdown(visit, line, receipt)

    dialog()


def _show_breakdown(visit: PageContext, line: ChatMessage, receipt: Mapping[str, Any]) -> None:
    say = visit.say
    if not receipt:
        st.info(say("no_receipt"))
        return
    tokens = receipt["tokens"]
    if len(line.details.get("present", ())) > 1 and line.details.get("reason"):
        st.caption(f"{say('reason')}: {explain_reason(visit, line)}")
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
    _show_group(visit, "lore", receipt["lore"], receipt["lore_dropped"], _describe_lore)
    _show_group(
        visit, "memories", receipt["memories"], receipt["memories_dropped"], _describe_memory
    )
    _show_group(
        visit, "documents", receipt["documents"], receipt["documents_dropped"], _describe_document
    )
    if st.toggle(say("whole_prompt"), key=f"whole_prompt_{line.id}"):
        for message in receipt["prompt"]:
            st.caption(message["role"])
            st.code(message["text"], language=None, wrap_lines=True)


def _show_group(
    visit: PageContext, part: str, entered: list[Any], dropped: list[Any], head: Any
) -> None:
    say = visit.say
    if not entered and not dropped:
        return
    st.markdown(f"**{say(part)}**")
    for one in entered:
        with st.container(border=True, gap=None):
            st.caption(escape_markdown(head(visit, one)))
            st.text(one["text"])
    if dropped:
        with st.expander(f"{say('dropped')} ({len(dropped)})"):
            for one in dropped:
                st.caption(escape_markdown(head(visit, one)))
                st.text(one["text"][:300])


def _describe_lore(visit: PageContext, one: Mapping[str, Any]) -> str:
    return f"{one['name']} · {one['why']} · {one['tokens']} {visit.say('tokens')}"


def _describe_memory(visit: PageContext, one: Mapping[str, Any]) -> str:
    day = time.strftime("%Y-%m-%d", time.localtime(one["at"]))
    score, tokens = visit.say("score", score=one["score"]), visit.say("tokens")
    return f"{day} · {score} · {one['why']} · {one['tokens']} {tokens}"


def _describe_document(visit: PageContext, one: Mapping[str, Any]) -> str:
    number = f"[{one['number']}] " if one["number"] else ""
    place = " · ".join(filter(None, [one["heading"], f"p. {one['page']}" if one["page"] else ""]))
    return (
        f"{number}{one['name']} {place} · {visit.say('score', score=one['score'])} · {one['why']} · "
        f"{one['tokens']} {visit.say('tokens')}"
    )


def show_source(visit: PageContext, speaker: str, one: Mapping[str, Any]) -> None:
    """A dialog with the document around a cited span, the span set off."""

    @st.dialog(escape_markdown(f"[{one['number']}] {one['name']}", 80), width="medium")
    def dialog() -> None:
        if one["heading"]:
            st.caption(escape_markdown(one["heading"]))
        before, behind = _get_surrounding_text(visit, speaker, one)
        if before:
            st.text("…" + before)
        with st.container(key=f"cited_{one['number']}"):
            st.text(one["text"])
        if behind:
            st.text(behind + "…")

    dialog()


def _get_surrounding_text(
    visit: PageContext, speaker: str, one: Mapping[str, Any]
) -> tuple[str, str]:
    """What stands before and behind a span; nothing when the document has gone or changed."""
    knowledge = visit.service.providers.knowledge
    for shelf in visit.service.providers.shelves(visit.user, speaker) if knowledge else ():
        try:
            text = knowledge.text(shelf, one["document_id"]) if knowledge else ""
        except ElysiaError:
            continue
        start, end = one["start"], one["end"]
        if text[start:end].strip() == one["text"].strip():
            return text[max(0, start - CONTEXT_CHARACTERS) : start], text[
                end : end + CONTEXT_CHARACTERS
            ]
    return "", ""


REASON_KEYS = {
    "asked to answer anew": "because_again",
    "the only one": "because_only",
    "everyone was asked": "because_everyone",
    "spoke last, and the user goes on with it": "because_goes_on",
    "was silent longest": "because_silent",
}


def explain_reason(visit: PageContext, line: ChatMessage) -> str:
    """Why it was this one who spoke, as markdown."""
    reason = str(line.details.get("reason") or "")
    if reason.startswith("named by the user"):
        return escape_markdown(visit.say("because_named"))
    if reason.startswith("named by "):
        return escape_markdown(
            visit.say("because_called", name=reason.removeprefix("named by ")), 120
        )
    return escape_markdown(visit.say(REASON_KEYS[reason]) if reason in REASON_KEYS else reason, 120)
