"""A reply's prompt breakdown in a dialog: lore, memories, documents, what found no room, the whole prompt."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from elysia.chat.generation.speaker_selection import SelectionReason
from elysia.chat.message_tree import ChatMessage, render_packed
from elysia.core.errors import ElysiaError
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit.context import PageContext

CONTEXT_CHARACTERS = 500  # of a document before and behind a passage
PARTS = ("system", "lore", "memories", "documents", "summary", "talk")
REASON_KEYS: dict[str, str] = {
    SelectionReason.REGENERATE: "because_regenerated",
    SelectionReason.ONLY_ONE: "because_only",
    SelectionReason.NAMED_BY_USER: "because_named_by_user",
    SelectionReason.EVERYONE_ASKED: "because_everyone",
    SelectionReason.NAMED_BY_CHARACTER: "because_named_by",
    SelectionReason.LAST_SPEAKER: "because_goes_on",
    SelectionReason.LONGEST_SILENT: "because_silent",
}

# A stored item of the breakdown: plain values, as `chat.prompt.builder` describes them.
Item = Mapping[str, Any]


def explain_reason(page: PageContext, message: ChatMessage) -> str:
    """Why this character speaks, as markdown; '' where that is not stored.

    Replies of older versions have the English sentence alone, which is shown as it is.
    """
    selection = message.details.get("selection") or {}
    key = REASON_KEYS.get(selection.get("code", ""))
    if key is None:
        return escape_markdown(str(message.details.get("reason") or ""), 120)
    return escape_markdown(page.t(key, **selection.get("params", {})), 120)


def show_breakdown(page: PageContext, message: ChatMessage, breakdown: Mapping[str, Any]) -> None:
    """A dialog with what entered a reply's prompt."""

    @st.dialog(page.t("prompt_breakdown"), width="medium")
    def dialog() -> None:
        if breakdown:
            _show_overview(page, message, breakdown)
            _show_parts(page, message, breakdown)
        else:
            st.info(page.t("no_breakdown"))

    dialog()


def _show_overview(page: PageContext, message: ChatMessage, breakdown: Mapping[str, Any]) -> None:
    t, tokens, details = page.t, breakdown["tokens"], message.details
    if len(details.get("present", ())) > 1 and details.get("reason"):
        st.caption(f"{t('reason')}: {explain_reason(page, message)}")
    st.caption(t("tokens_line", **{key: tokens[key] for key in ("prompt", "context", "reply")}))
    if "prepared" in details:
        milliseconds, reply_tokens = details["prepared"] * 1000, details.get("tokens", "–")
        st.caption(t("timing", prepared=milliseconds, tokens=reply_tokens))
    st.progress(min(1.0, tokens["prompt"] / max(1, tokens["context"])))
    parts = [f"{t(part)} **{tokens[part]}**" for part in PARTS if tokens.get(part)]
    st.markdown("　".join(parts))


def _show_parts(page: PageContext, message: ChatMessage, breakdown: Mapping[str, Any]) -> None:
    t = page.t
    if breakdown["left_out"]:
        st.caption(t("left_out", count=breakdown["left_out"]))
    if breakdown["summary"]:
        st.markdown(f"**{t('summary')}**")
        st.text(breakdown["summary"])
    for part, describe in (
        ("lore", _describe_lore), ("memories", _describe_memory), ("documents", _describe_document),
    ):  # fmt: skip
        _show_group(page, part, breakdown[part], breakdown[f"{part}_dropped"], describe)
    if st.toggle(t("whole_prompt"), key=f"whole_prompt_{message.id}"):
        for entry in breakdown["prompt"]:
            st.caption(entry["role"])
            st.code(entry["text"], language=None, wrap_lines=True)


def _show_group(
    page: PageContext,
    part: str,
    entered: list[Item],
    dropped: list[Item],
    describe: Callable[[PageContext, Item], str],
) -> None:
    if not entered and not dropped:
        return
    st.markdown(f"**{page.t(part)}**")
    for item in entered:
        with st.container(border=True, gap=None):
            st.caption(escape_markdown(describe(page, item)))
            st.text(item["text"])
    if dropped:
        with st.expander(f"{page.t('dropped')} ({len(dropped)})"):
            for item in dropped:
                st.caption(escape_markdown(describe(page, item)))
                st.text(item["text"][:300])


def _describe_lore(page: PageContext, item: Item) -> str:
    return f"{item['name']} · {item['why']} · {item['tokens']} {page.t('tokens')}"


def _describe_memory(page: PageContext, item: Item) -> str:
    day = time.strftime("%Y-%m-%d", time.localtime(item["at"]))
    score, tokens = page.t("score", score=item["score"]), page.t("tokens")
    return f"{day} · {score} · {_render_reasons(page, item)} · {item['tokens']} {tokens}"


def _describe_document(page: PageContext, item: Item) -> str:
    number = f"[{item['number']}] " if item["number"] else ""
    page_number = f"p. {item['page']}" if item["page"] else ""
    place = " · ".join(filter(None, [item["heading"], page_number]))
    score, tokens = page.t("score", score=item["score"]), page.t("tokens")
    reasons = _render_reasons(page, item)
    return f"{number}{item['name']} {place} · {score} · {reasons} · {item['tokens']} {tokens}"


def _render_reasons(page: PageContext, item: Item) -> str:
    return render_packed(item.get("reasons"), page.language, item["why"])


def show_source(page: PageContext, speaker: str, item: Item) -> None:
    """A dialog with the document around a cited passage, the passage set off."""

    @st.dialog(escape_markdown(f"[{item['number']}] {item['name']}", 80), width="medium")
    def dialog() -> None:
        if item["heading"]:
            st.caption(escape_markdown(item["heading"]))
        before, behind = _get_surrounding_text(page, speaker, item)
        if before:
            st.text("…" + before)
        with st.container(key=f"cited_{item['number']}"):
            st.text(item["text"])
        if behind:
            st.text(behind + "…")

    dialog()


def _get_surrounding_text(page: PageContext, speaker: str, item: Item) -> tuple[str, str]:
    """What stands before and behind a passage; nothing when the document was removed or changed."""
    knowledge = page.service.providers.knowledge
    for collection in page.service.providers.collections(page.user, speaker) if knowledge else ():
        try:
            text = knowledge.text(collection, item["document_id"]) if knowledge else ""
        except ElysiaError:
            continue
        start, end = item["start"], item["end"]
        if text[start:end].strip() == item["text"].strip():
            before = text[max(0, start - CONTEXT_CHARACTERS) : start]
            return before, text[end : end + CONTEXT_CHARACTERS]
    return "", ""
