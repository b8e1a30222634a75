"""The gallery: who can be talked to; one for a talk of two, several for a table; cards come in here.

Knows nothing of how a card is read.
"""

from __future__ import annotations

import streamlit as st

from elysia.chat.characters import CharacterEntry
from elysia.chat.prompt.builder import detect_language
from elysia.chat.transcript import import_conversation
from elysia.web.safe_markdown import escape_markdown
from elysia.web.streamlit.context import (
    PageContext,
    open_conversation,
    read_widget,
    set_notice,
    show_errors,
)

CARD_MB, TALK_MB = 20, 20
MAX_TAGLINE_LENGTH = 56  # characters of what a card says below its name
HOST_KEY = "elysia"  # she opens the door
CARD_TYPES = ["png", "json", "charx"]


def show_gallery(visit: PageContext) -> None:
    """Everybody, and the ways to begin."""
    say = visit.say
    st.header(say("choose"), anchor=False)
    st.caption(say("choose_more"))
    cast = sorted(
        visit.service.characters.all(visit.user), key=lambda member: member.key != HOST_KEY
    )
    seated = [m for m in cast if st.session_state.get(f"seat_{m.key}")]
    if seated:
        label = say("start_group", count=len(seated)) if len(seated) > 1 else say("start")
        st.button(
            label, key="start", type="primary", icon=":material/local_cafe:",
            on_click=_begin_table, args=(visit, [member.key for member in cast]),
        )  # fmt: skip
    with st.container(horizontal=True, key="gallery", gap="small"):
        for member in cast:
            _show_card(visit, member)
    with st.expander(say("import_card"), icon=":material/person_add:", key="import_card"):
        _import_card(visit)
    with st.expander(say("import_talk"), icon=":material/upload_file:", key="import_talk"):
        _import_talk(visit, cast)


def get_card_notes(member: CharacterEntry, language: str) -> str:
    """What a card says to people, not to the model: its notes, else its description."""
    persona, extra = member.persona, member.persona.extra
    notes = extra.get("creator_notes_multilingual")
    in_it = notes.get(language) if isinstance(notes, dict) else None
    for text in (in_it, extra.get("creator_notes"), persona.description):
        if isinstance(text, str) and text.strip() and detect_language(text) == language:
            return persona.fill(text)
    return persona.fill(str(extra.get("creator_notes") or persona.description))


def get_name(member: CharacterEntry, language: str) -> str:
    """Her name; in English the English one where our card has one."""
    english = member.persona.elysia_extensions.get("english_name")
    return english if language == "en" and isinstance(english, str) and english else member.name


def _show_card(visit: PageContext, member: CharacterEntry) -> None:
    say = visit.say
    with st.container(key=f"card_{member.key}", border=True, width=160, gap="small"):
        st.image(visit.picture(member), width="stretch", alt=member.name)
        st.markdown(f"**{escape_markdown(get_name(member, visit.language), 40)}**")
        st.caption(escape_markdown(get_card_notes(member, visit.language), MAX_TAGLINE_LENGTH))
        st.button(
            say("talk_to"), key=f"begin_{member.key}", type="primary", width="stretch",
            icon=":material/chat_bubble:", on_click=_begin, args=(visit, [member.key]),
        )  # fmt: skip
        with st.container(horizontal=True, horizontal_alignment="distribute", gap="small"):
            st.toggle(say("seat"), key=f"seat_{member.key}")
            if st.button(
                "",
                key=f"about_{member.key}",
                icon=":material/info:",
                type="tertiary",
                help=say("about"),
            ):
                _show_about(visit, member)


def _show_about(visit: PageContext, member: CharacterEntry) -> None:
    say, persona = visit.say, member.persona

    @st.dialog(escape_markdown(member.name, 60))
    def dialog() -> None:
        st.image(visit.picture(member), width=160)
        st.text(get_card_notes(member, visit.language))
        creator = persona.extra.get("creator")
        if isinstance(creator, str) and creator:
            st.caption(escape_markdown(say("by", name=creator), 100))
        book = persona.extra.get("character_book")
        entries = book.get("entries") if isinstance(book, dict) else None
        counts = [say("greetings", count=len(member.card.greetings))]
        if isinstance(entries, list) and entries:
            counts.append(say("lore_count", count=len(entries)))
        st.caption(" · ".join(counts))
        st.text(persona.fill(persona.description))
        if member.owner is not None:
            with st.popover(say("remove_card"), icon=":material/delete:", key="remove_card"):
                st.caption(say("really"))
                if st.button(say("yes_remove"), key="yes_remove"):
                    with show_errors():
                        visit.service.characters.remove(visit.user, member.key)
                    st.rerun()

    dialog()


def _begin(visit: PageContext, keys: list[str]) -> None:
    with show_errors():
        open_conversation(visit.service.new(visit.user, keys).id)
        for key in [key for key in st.session_state if str(key).startswith("seat_")]:
            st.session_state[key] = False


def _begin_table(visit: PageContext, keys: list[str]) -> None:
    # Who sits there at the click: somebody may have sat down since the button was drawn.
    _begin(visit, [key for key in keys if read_widget(f"seat_{key}")])


def _import_card(visit: PageContext) -> None:
    say = visit.say
    number = st.session_state.setdefault("cards_taken", 0)
    file = st.file_uploader(
        say("import_help"), type=CARD_TYPES, key=f"card_file_{number}", max_upload_size=CARD_MB
    )
    if file is not None:
        with show_errors():
            made = visit.service.characters.add(visit.user, file.name, file.getvalue())
            set_notice(say("imported", name=made.name))
        st.session_state["cards_taken"] = number + 1  # an empty uploader
        st.rerun()


def _import_talk(visit: PageContext, characters: list[CharacterEntry]) -> None:
    say = visit.say
    names = {member.key: member.name for member in characters}
    guests = st.multiselect(
        say("table"),
        list(names),
        default=list(names)[:1],
        format_func=names.__getitem__,
        key="import_guests",
    )
    number = st.session_state.setdefault("talks_taken", 0)
    file = st.file_uploader(
        say("import_talk"), type=["jsonl"], key=f"talk_file_{number}", max_upload_size=TALK_MB
    )
    if file is not None:
        with show_errors():
            open_conversation(
                import_conversation(visit.service, visit.user, guests, file.getvalue())
            )
        st.session_state["talks_taken"] = number + 1
        st.rerun()
