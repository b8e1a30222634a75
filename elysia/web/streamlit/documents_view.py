"""A character's documents: its own, and those the user adds for it; to look through, search and remove."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from elysia.chat.message_tree import Conversation
from elysia.knowledge.base import Document, KnowledgeBase
from elysia.knowledge.sandbox import MAX_FILE
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit.context import PageContext, set_notice, show_errors
from elysia.web.streamlit.memory_view import choose_character

MAX_UPLOAD_MB = MAX_FILE >> 20
DOCUMENT_TYPES = ["txt", "md", "pdf", "docx", "html", "htm", "csv", "epub"]


def show_documents(page: PageContext, conversation: Conversation) -> None:
    """The collections of one character."""
    t, knowledge = page.t, page.service.providers.knowledge
    if knowledge is None:
        st.info(t("no_knowledge"))
        return
    key = choose_character(page, conversation)
    character = page.get_character(key)
    name = character.name if character else key
    st.markdown(f"**{escape_markdown(t('shelf', name=name))}**")
    bundled, own = page.service.providers.collections(page.user, key)
    _show_upload(page, knowledge, own)
    own_documents, bundled_documents = knowledge.documents(own), knowledge.documents(bundled)
    if not own_documents and not bundled_documents:
        st.caption(t("no_documents"))
        return
    for title, documents, collection in (
        (t("own_documents"), own_documents, own),
        (t("her_documents"), bundled_documents, None),
    ):
        if documents:
            st.markdown(f"##### {title}")
        for document in documents:
            _show_document(page, knowledge, document, collection)
    question = st.text_input(
        t("ask_shelf"), key="ask_shelf", icon=":material/search:", max_chars=500
    )
    if question.strip():
        for hit in knowledge.search([bundled, own], question, k=4):
            with st.container(border=True, gap=None):
                score = t("score", score=round(hit.score, 3))
                reasons = hit.explanation.render(page.language)
                st.caption(escape_markdown(f"{hit.name} {hit.heading} · {score} · {reasons}"))
                st.text(hit.text)


def _show_upload(page: PageContext, knowledge: KnowledgeBase, collection: str) -> None:
    t = page.t
    number = st.session_state.setdefault("documents_taken", 0)
    files = st.file_uploader(
        t("upload"), type=DOCUMENT_TYPES, accept_multiple_files=True, key=f"documents_{number}",
        help=t("upload_help"), max_upload_size=MAX_UPLOAD_MB,
    )  # fmt: skip
    if not files:
        return
    notices = []
    for file in files:
        bar = st.progress(0.0, escape_markdown(t("reading", name=file.name), 120))
        with show_errors():
            on_progress = _build_progress_callback(bar)
            document = knowledge.add(collection, file.name, file.getvalue(), on_progress)
            notices.append(t("read", name=document.name, spans=document.spans))
    if notices:
        set_notice("  ".join(notices))
    st.session_state["documents_taken"] = number + 1  # another key: an empty uploader
    st.rerun()


def _build_progress_callback(bar: DeltaGenerator) -> Callable[[float], None]:
    def show_share(share: float) -> None:
        bar.progress(min(1.0, max(0.0, share)))

    return show_share


def _show_document(
    page: PageContext, knowledge: KnowledgeBase, document: Document, collection: str | None
) -> None:
    """A document; with a button to remove it where a `collection` is given."""
    t = page.t
    with st.container(
        border=True, horizontal=True, vertical_alignment="center", key=f"document_{document.id}",
        gap="small",
    ):  # fmt: skip
        with st.container(gap=None):
            st.text(document.name)
            pages = f" · {document.pages} p." if document.pages else ""
            st.caption(t("spans", spans=document.spans, characters=document.characters) + pages)
        if collection is not None:
            st.button(
                "", key=f"remove_{document.id}", icon=":material/delete:", type="tertiary",
                help=t("remove"), on_click=_remove, args=(knowledge, collection, document.id),
            )  # fmt: skip


def _remove(knowledge: KnowledgeBase, collection: str, id: str) -> None:
    with show_errors():
        knowledge.remove(collection, id)
