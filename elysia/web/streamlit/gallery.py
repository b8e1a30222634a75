"""The gallery: the characters to talk to, one alone or several as a group; the place to import cards."""

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
MAX_TAGLINE_LENGTH = 56  # characters of the line below a name
HOST_KEY = "elysia"  # the first of the gallery
CARD_TYPES = ["png", "json", "charx"]


def show_gallery(page: PageContext) -> None:
    """Every character, and the ways to begin a conversation."""
    t = page.t
    st.header(t("choose"), anchor=False)
    st.caption(t("choose_more"))
    characters = sorted(
        page.service.characters.all(page.user), key=lambda character: character.key != HOST_KEY
    )
    seated = [
        character for character in characters if st.session_state.get(f"seat_{character.key}")
    ]
    if seated:
        label = t("start_group", count=len(seated)) if len(seated) > 1 else t("start")
        st.button(
            label, key="start", type="primary", icon=":material/local_cafe:",
            on_click=_begin_group, args=(page, [character.key for character in characters]),
        )  # fmt: skip
    with st.container(horizontal=True, key="gallery", gap="small"):
        for character in characters:
            _show_card(page, character)
    with st.expander(t("import_card"), icon=":material/person_add:", key="import_card"):
        _import_card(page)
    with st.expander(t("import_talk"), icon=":material/upload_file:", key="import_talk"):
        _import_conversation(page, characters)


def get_card_notes(character: CharacterEntry, language: str) -> str:
    """What a card tells people about itself, not the model: its notes, else its description."""
    persona, extra = character.persona, character.persona.extra
    notes = extra.get("creator_notes_multilingual")
    own_notes = notes.get(language) if isinstance(notes, dict) else None
    for text in (own_notes, extra.get("creator_notes"), persona.description):
        if isinstance(text, str) and text.strip() and detect_language(text) == language:
            return persona.fill(text)
    return persona.fill(str(extra.get("creator_notes") or persona.description))


def get_name(character: CharacterEntry, language: str) -> str:
    """The name to show; in English the English one, where the card has one among our extensions."""
    english = character.persona.elysia_extensions.get("english_name")
    return english if language == "en" and isinstance(english, str) and english else character.name


def _show_card(page: PageContext, character: CharacterEntry) -> None:
    t = page.t
    with st.container(key=f"card_{character.key}", border=True, width=160, gap="small"):
        st.image(page.get_picture(character), width="stretch", alt=character.name)
        st.markdown(f"**{escape_markdown(get_name(character, page.language), 40)}**")
        st.caption(escape_markdown(get_card_notes(character, page.language), MAX_TAGLINE_LENGTH))
        st.button(
            t("talk_to"), key=f"begin_{character.key}", type="primary", width="stretch",
            icon=":material/chat_bubble:", on_click=_begin, args=(page, [character.key]),
        )  # fmt: skip
        with st.container(horizontal=True, horizontal_alignment="distribute", gap="small"):
            st.toggle(t("seat"), key=f"seat_{character.key}")
            if st.button(
                "", key=f"about_{character.key}", icon=":material/info:", type="tertiary",
                help=t("about"),
            ):  # fmt: skip
                _show_about(page, character)


def _show_about(page: PageContext, character: CharacterEntry) -> None:
    t, persona = page.t, character.persona

    @st.dialog(escape_markdown(character.name, 60))
    def dialog() -> None:
        st.image(page.get_picture(character), width=160)
        st.text(get_card_notes(character, page.language))
        creator = persona.extra.get("creator")
        if isinstance(creator, str) and creator:
            st.caption(escape_markdown(t("by", name=creator), 100))
        book = persona.extra.get("character_book")
        entries = book.get("entries") if isinstance(book, dict) else None
        counts = [t("greetings", count=len(character.card.greetings))]
        if isinstance(entries, list) and entries:
            counts.append(t("lore_count", count=len(entries)))
        st.caption(" · ".join(counts))
        st.text(persona.fill(persona.description))
        if character.owner is not None:
            with st.popover(t("remove_card"), icon=":material/delete:", key="remove_card"):
                st.caption(t("really"))
                if st.button(t("yes_remove"), key="yes_remove"):
                    with show_errors():
                        page.service.characters.remove(page.user, character.key)
                    st.rerun()

    dialog()


def _begin(page: PageContext, keys: list[str]) -> None:
    with show_errors():
        open_conversation(page.service.create(page.user, keys).id)
        for key in [key for key in st.session_state if str(key).startswith("seat_")]:
            st.session_state[key] = False


def _begin_group(page: PageContext, keys: list[str]) -> None:
    # Those who are seated now: some may have been since the button was drawn.
    _begin(page, [key for key in keys if read_widget(f"seat_{key}")])


def _import_card(page: PageContext) -> None:
    t = page.t
    number = st.session_state.setdefault("cards_taken", 0)
    file = st.file_uploader(
        t("import_help"), type=CARD_TYPES, key=f"card_file_{number}", max_upload_size=CARD_MB
    )
    if file is not None:
        with show_errors():
            character = page.service.characters.add(page.user, file.name, file.getvalue())
            set_notice(t("imported", name=character.name))
        st.session_state["cards_taken"] = number + 1  # another key: an empty uploader
        st.rerun()


def _import_conversation(page: PageContext, characters: list[CharacterEntry]) -> None:
    t = page.t
    names = {character.key: character.name for character in characters}
    guests = st.multiselect(
        t("table"), list(names), default=list(names)[:1], format_func=names.__getitem__,
        key="import_guests",
    )  # fmt: skip
    number = st.session_state.setdefault("talks_taken", 0)
    file = st.file_uploader(
        t("import_talk"), type=["jsonl"], key=f"talk_file_{number}", max_upload_size=TALK_MB
    )
    if file is not None:
        with show_errors():
            open_conversation(import_conversation(page.service, page.user, guests, file.getvalue()))
        st.session_state["talks_taken"] = number + 1
        st.rerun()
