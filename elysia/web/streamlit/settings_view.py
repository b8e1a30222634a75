"""The settings of a conversation; each change is stored at once."""

from __future__ import annotations

import streamlit as st

from elysia.chat.message_tree import Conversation
from elysia.chat.settings import PRESETS, ConversationSettings
from elysia.voice import registry
from elysia.web.reply_audio import get_voice_name
from elysia.web.streamlit.context import PageContext, read_widget, show_errors

MAX_REPLY_TOKENS = 4096  # tokens, on the slider


def show_settings(page: PageContext, conversation: Conversation) -> None:
    """Every setting, in groups."""
    t, settings = page.t, ConversationSettings.load(conversation.settings)
    st.markdown(f"##### {t('generation')}")
    _show_generation(page, conversation, settings)
    st.markdown(f"##### {t('who_you_are')}")
    _show_people(page, conversation, settings)
    st.markdown(f"##### {t('voice')}")
    _show_voice(page, conversation, settings)


def _show_generation(
    page: PageContext, conversation: Conversation, settings: ConversationSettings
) -> None:
    t = page.t
    preset = next(
        (
            name
            for name, values in PRESETS.items()
            if all(getattr(settings, key) == value for key, value in values.items())
        ),
        None,
    )
    st.segmented_control(
        t("preset"), list(PRESETS), default=preset, key=_build_key(conversation, "preset"),
        format_func=t, on_change=_apply_preset, args=(page, conversation),
    )  # fmt: skip
    longest = max(MAX_REPLY_TOKENS, settings.max_new_tokens)
    for name, label, low, high, step in (
        ("max_new_tokens", "max_length", 8, longest, 8),
        ("top_p", "top_p", 0.01, 1.0, 0.01),
        ("temperature", "temperature", 0.0, 2.0, 0.01),
        ("top_k", "top_k", 0, max(100, settings.top_k), 1),
        ("repetition_penalty", "repetition", 1.0, 2.0, 0.01),
    ):
        _setting_slider(page, conversation, settings, name, label, low, high, step)
    for name, label in (
        ("memory", "use_memory"), ("knowledge", "use_documents"), ("examples", "use_examples"),
    ):  # fmt: skip
        _setting_toggle(page, conversation, settings, name, label)
    st.text_area(
        t("system_prompt"), settings.system, key=_build_key(conversation, "system"),
        on_change=_save_setting, args=(page, conversation, "system"),
    )  # fmt: skip


def _show_people(
    page: PageContext, conversation: Conversation, settings: ConversationSettings
) -> None:
    t = page.t
    st.text_input(
        t("your_name"), str(settings.user.get("name") or ""),
        key=_build_key(conversation, "your_name"), max_chars=60, on_change=_save_persona,
        args=(page, conversation),
    )  # fmt: skip
    st.text_area(
        t("your_description"), str(settings.user.get("description") or ""),
        key=_build_key(conversation, "your_description"), max_chars=4000, on_change=_save_persona,
        args=(page, conversation),
    )  # fmt: skip
    names = {character.key: character.name for character in page.service.characters.all(page.user)}
    st.multiselect(
        t("table"), list(names), default=[key for key in conversation.guests if key in names],
        format_func=names.__getitem__, key=_build_key(conversation, "table"), on_change=_set_guests,
        args=(page, conversation),
    )  # fmt: skip
    if len(conversation.guests) > 1:
        _setting_slider(page, conversation, settings, "round", "round", 1, 6, 1)


def _show_voice(
    page: PageContext, conversation: Conversation, settings: ConversationSettings
) -> None:
    t = page.t
    _setting_toggle(page, conversation, settings, "voice", "voice_on")
    names = ["", *registry.list_voices()]
    place = names.index(settings.voice_name) if settings.voice_name in names else 0
    st.selectbox(
        t("voice_name"), names, place, format_func=lambda name: name or t("voice_own"),
        key=_build_key(conversation, "voice_name"), on_change=_save_setting,
        args=(page, conversation, "voice_name"),
    )  # fmt: skip
    _setting_slider(page, conversation, settings, "speed", "speed", 0.5, 2.0, 0.05)


def _setting_toggle(
    page: PageContext,
    conversation: Conversation,
    settings: ConversationSettings,
    name: str,
    label: str,
) -> None:
    st.toggle(
        page.t(label), getattr(settings, name), key=_build_key(conversation, name),
        on_change=_save_setting, args=(page, conversation, name),
    )  # fmt: skip


def _setting_slider(
    page: PageContext,
    conversation: Conversation,
    settings: ConversationSettings,
    name: str,
    label: str,
    low: float,
    high: float,
    step: float,
) -> None:
    key = _build_key(conversation, name)
    if key not in st.session_state:
        st.session_state[key] = min(max(getattr(settings, name), low), high)
    st.slider(
        page.t(label), low, high, step=step, key=key, on_change=_save_setting,
        args=(page, conversation, name),
    )  # fmt: skip


def _build_key(conversation: Conversation, name: str) -> str:
    return f"set_{name}_{conversation.id}"


def _save_setting(page: PageContext, conversation: Conversation, name: str) -> None:
    with show_errors():
        value = read_widget(_build_key(conversation, name))
        updated = page.service.update_settings(page.user, conversation.id, **{name: value})
        settings = ConversationSettings.load(updated.settings)
        if name in ("voice", "voice_name") and settings.voice:
            for (
                guest
            ) in conversation.guests:  # report a missing voice now, not in the middle of a reply
                page.state.voices.get(get_voice_name(page.service, page.user, guest, settings))


def _apply_preset(page: PageContext, conversation: Conversation) -> None:
    preset = str(read_widget(_build_key(conversation, "preset")))
    if preset in PRESETS:
        with show_errors():
            page.service.update_settings(page.user, conversation.id, **PRESETS[preset])
        for name, value in PRESETS[preset].items():
            st.session_state[_build_key(conversation, name)] = value


def _save_persona(page: PageContext, conversation: Conversation) -> None:
    persona = {
        name: str(read_widget(_build_key(conversation, f"your_{name}")) or "")
        for name in ("name", "description")
    }
    with show_errors():
        page.service.update_settings(page.user, conversation.id, user=persona)


def _set_guests(page: PageContext, conversation: Conversation) -> None:
    with show_errors():
        guests = read_widget(_build_key(conversation, "table"))
        page.service.set_guests(page.user, conversation.id, guests)
