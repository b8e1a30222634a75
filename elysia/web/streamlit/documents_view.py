"""A character's documents: those a user gives her, and her own; to add, look through and remove.

Knows nothing of how a document is read or searched.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from elysia.chat.message_tree import Conversation
from elysia.core.errors import ElysiaError
from elysia.knowledge.base import Document, KnowledgeBase
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit.context import PageContext, set_notice, show_errors
from elysia.web.streamlit.memory_view import choose_character

MAX_UPLOAD_MB = 20
DOCUMENT_TYPES = ["txt", "md", "pdf", "docx", "html", "htm", "csv", "epub"]


def show_documents(visit: PageContext, talk: Conversation) -> None:
    """The shelves of one guest."""
    say, knowledge = visit.say, visit.service.providers.knowledge
    if knowledge is None:
        st.info(say("no_knowledge"))
        return
    character = choose_character(visit, talk)
    member = visit.member(character)
    st.markdown(f"**{escape_markdown(say('shelf', name=member.name if member else character))}**")
    hers, own = visit.service.providers.shelves(visit.user, character)
    _show_upload(visit, knowledge, own)
    mine, bundled = knowledge.documents(own), knowledge.documents(hers)
    if not mine and not bundled:
        st.caption(say("no_documents"))
        return
    for title, found, shelf in (
        (say("own_documents"), mine, own),
        (say("her_documents"), bundled, None),
    ):
        if found:
            st.markdown(f"##### {title}")
        for one in found:
            _show_document(visit, knowledge, one, shelf)
    wanted = st.text_input(
        say("ask_shelf"), key="ask_shelf", icon=":material/search:", max_chars=500
    )
    if wanted.strip():
        for hit in knowledge.search([hers, own], wanted, k=4):
            with st.container(border=True, gap=None):
                st.caption(
                    escape_markdown(
                        f"{hit.name} {hit.heading} · {say('score', score=round(hit.score, 3))} · {hit.explanation}"
                    )
                )
                st.text(hit.text)


def _show_upload(visit: PageContext, knowledge: KnowledgeBase, shelf: str) -> None:
    say = visit.say
    number = st.session_state.setdefault("documents_taken", 0)
    files = st.file_uploader(
        say("upload"), type=DOCUMENT_TYPES, accept_multiple_files=True, key=f"documents_{number}",
        help=say("upload_help"), max_upload_size=MAX_UPLOAD_MB,
    )  # fmt: skip
    if not files:
        return
    said = []
    for file in files:
        bar = st.progress(0.0, escape_markdown(say("reading", name=file.name), 120))
        try:
            made = knowledge.add(shelf, file.name, file.getvalue(), _build_progress_callback(bar))
            said.append(say("read", name=made.name, spans=made.spans))
        except ElysiaError as error:
            st.session_state["fault"] = str(error)
    if said:
        set_notice("  ".join(said))
    st.session_state["documents_taken"] = number + 1  # an empty uploader
    st.rerun()


def _build_progress_callback(bar: DeltaGenerator) -> Callable[[float], None]:
    def show_share(share: float) -> None:
        bar.progress(min(1.0, max(0.0, share)))

    return show_share


def _show_document(
    visit: PageContext, knowledge: KnowledgeBase, one: Document, shelf: str | None
) -> None:
    say = visit.say
    with st.container(
        border=True,
        horizontal=True,
        vertical_alignment="center",
        key=f"document_{one.id}",
        gap="small",
    ):
        with st.container(gap=None):
            st.text(one.name)
            pages = f" · {one.pages} p." if one.pages else ""
            st.caption(say("spans", spans=one.spans, characters=one.characters) + pages)
        if shelf is not None:
            st.button(
                "", key=f"remove_{one.id}", icon=":material/delete:", type="tertiary", help=say("remove"),
                on_click=_remove, args=(knowledge, shelf, one.id),
            )  # fmt: skip


def _remove(knowledge: KnowledgeBase, shelf: str, id: str) -> None:
    with show_errors():
        knowledge.remove(shelf, id)
