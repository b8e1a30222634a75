"""A character's documents: those a user gives her, and her own; to add, look through and remove.

Knows nothing of how a document is read or searched.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from elysia.chat.tree import Conversation
from elysia.core.errors import ElysiaError
from elysia.knowledge.base import Document, Knowledge
from elysia.web.page.memory import whose
from elysia.web.page.visit import Visit, notice, told
from elysia.web.text import plain

MOST_MB = 20
KINDS = ["txt", "md", "pdf", "docx", "html", "htm", "csv", "epub"]


def show(visit: Visit, talk: Conversation) -> None:
    """The shelves of one guest."""
    say, knowledge = visit.say, visit.service.surroundings.knowledge
    if knowledge is None:
        st.info(say("no_knowledge"))
        return
    character = whose(visit, talk)
    member = visit.member(character)
    st.markdown(f"**{plain(say('shelf', name=member.name if member else character))}**")
    hers, own = visit.service.surroundings.shelves(visit.user, character)
    _upload(visit, knowledge, own)
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
            _document(visit, knowledge, one, shelf)
    wanted = st.text_input(
        say("ask_shelf"), key="ask_shelf", icon=":material/search:", max_chars=500
    )
    if wanted.strip():
        for hit in knowledge.search([hers, own], wanted, k=4):
            with st.container(border=True, gap=None):
                st.caption(
                    plain(
                        f"{hit.name} {hit.heading} · {say('score', score=round(hit.score, 3))} · {hit.why}"
                    )
                )
                st.text(hit.text)


def _upload(visit: Visit, knowledge: Knowledge, shelf: str) -> None:
    say = visit.say
    number = st.session_state.setdefault("documents_taken", 0)
    files = st.file_uploader(
        say("upload"), type=KINDS, accept_multiple_files=True, key=f"documents_{number}",
        help=say("upload_help"), max_upload_size=MOST_MB,
    )  # fmt: skip
    if not files:
        return
    said = []
    for file in files:
        bar = st.progress(0.0, plain(say("reading", name=file.name), 120))
        try:
            made = knowledge.add(shelf, file.name, file.getvalue(), _shown_on(bar))
            said.append(say("read", name=made.name, spans=made.spans))
        except ElysiaError as error:
            st.session_state["fault"] = str(error)
    if said:
        notice("  ".join(said))
    st.session_state["documents_taken"] = number + 1  # an empty uploader
    st.rerun()


def _shown_on(bar: DeltaGenerator) -> Callable[[float], None]:
    def show_share(share: float) -> None:
        bar.progress(min(1.0, max(0.0, share)))

    return show_share


def _document(visit: Visit, knowledge: Knowledge, one: Document, shelf: str | None) -> None:
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


def _remove(knowledge: Knowledge, shelf: str, id: str) -> None:
    with told():
        knowledge.remove(shelf, id)
