"""What may be set of a conversation; each change is kept at once.

Knows nothing of what a setting does.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from elysia.chat.message_tree import Conversation
from elysia.chat.settings import PRESETS, ConversationSettings
from elysia.voice import registry
from elysia.web.reply_audio import get_voice_name
from elysia.web.streamlit.context import PageContext, read_widget, show_errors

MAX_REPLY_TOKENS = 4096  # tokens, on the slider


def show_settings(visit: PageContext, talk: Conversation) -> None:
    """Every setting, in groups."""
    say, now = visit.say, ConversationSettings.of(talk.settings)
    st.markdown(f"##### {say('generation')}")
    _show_generation(visit, talk, now)
    st.markdown(f"##### {say('who_you_are')}")
    _show_people(visit, talk, now)
    st.markdown(f"##### {say('voice')}")
    _show_voice(visit, talk, now)


def _show_generation(visit: PageContext, talk: Conversation, now: ConversationSettings) -> None:
    say = visit.say
    chosen = next(
        (
            name
            for name, values in PRESETS.items()
            if all(getattr(now, k) == v for k, v in values.items())
        ),
        None,
    )
    st.segmented_control(
        say("preset"), list(PRESETS), default=chosen, key=_build_key(talk, "preset"), format_func=say,
        on_change=_apply_preset, args=(visit, talk),
    )  # fmt: skip
    _setting_slider(
        visit,
        talk,
        now,
        "max_new_tokens",
        "max_length",
        8,
        max(MAX_REPLY_TOKENS, now.max_new_tokens),
        8,
    )
    _setting_slider(visit, talk, now, "top_p", "top_p", 0.01, 1.0, 0.01)
    _setting_slider(visit, talk, now, "temperature", "temperature", 0.0, 2.0, 0.01)
    _setting_slider(visit, talk, now, "top_k", "top_k", 0, max(100, now.top_k), 1)
    _setting_slider(visit, talk, now, "repetition_penalty", "repetition", 1.0, 2.0, 0.01)
    for name in ("memory", "knowledge", "examples"):
        label = say(
            {"memory": "use_memory", "knowledge": "use_documents", "examples": "use_examples"}[name]
        )
        st.toggle(
            label,
            getattr(now, name),
            key=_build_key(talk, name),
            on_change=_save_setting,
            args=(visit, talk, name),
        )
    _setting_text(visit, talk, "system", "system_prompt", now.system, tall=True)


def _show_people(visit: PageContext, talk: Conversation, now: ConversationSettings) -> None:
    say = visit.say
    st.text_input(
        say("your_name"), str(now.user.get("name") or ""), key=_build_key(talk, "your_name"), max_chars=60,
        on_change=_save_persona, args=(visit, talk),
    )  # fmt: skip
    st.text_area(
        say("your_description"), str(now.user.get("description") or ""), key=_build_key(talk, "your_description"),
        max_chars=4000, on_change=_save_persona, args=(visit, talk),
    )  # fmt: skip
    names = {member.key: member.name for member in visit.service.characters.all(visit.user)}
    st.multiselect(
        say("table"), list(names), default=[key for key in talk.guests if key in names],
        format_func=names.__getitem__, key=_build_key(talk, "table"), on_change=_invite, args=(visit, talk),
    )  # fmt: skip
    if len(talk.guests) > 1:
        _setting_slider(visit, talk, now, "round", "round", 1, 6, 1)


def _show_voice(visit: PageContext, talk: Conversation, now: ConversationSettings) -> None:
    say = visit.say
    st.toggle(
        say("voice_on"),
        now.voice,
        key=_build_key(talk, "voice"),
        on_change=_save_setting,
        args=(visit, talk, "voice"),
    )
    known = ["", *registry.list_voices()]
    place = known.index(now.voice_name) if now.voice_name in known else 0
    st.selectbox(
        say("voice_name"), known, place, format_func=lambda name: name or say("voice_own"),
        key=_build_key(talk, "voice_name"), on_change=_save_setting, args=(visit, talk, "voice_name"),
    )  # fmt: skip
    _setting_slider(visit, talk, now, "speed", "speed", 0.5, 2.0, 0.05)


def _setting_slider(
    visit: PageContext,
    talk: Conversation,
    now: ConversationSettings,
    name: str,
    label: str,
    low: Any,
    high: Any,
    step: Any,
) -> None:
    key = _build_key(talk, name)
    if key not in st.session_state:
        st.session_state[key] = min(max(getattr(now, name), low), high)
    st.slider(
        visit.say(label),
        low,
        high,
        step=step,
        key=key,
        on_change=_save_setting,
        args=(visit, talk, name),
    )


def _setting_text(
    visit: PageContext, talk: Conversation, name: str, label: str, value: str, *, tall: bool
) -> None:
    make = st.text_area if tall else st.text_input
    make(
        visit.say(label),
        value,
        key=_build_key(talk, name),
        on_change=_save_setting,
        args=(visit, talk, name),
    )


def _build_key(talk: Conversation, name: str) -> str:
    return f"set_{name}_{talk.id}"


def _save_setting(visit: PageContext, talk: Conversation, name: str) -> None:
    with show_errors():
        value = read_widget(_build_key(talk, name))
        kept = visit.service.set(visit.user, talk.id, **{name: value})
        settings = ConversationSettings.of(kept.settings)
        if name in ("voice", "voice_name") and settings.voice:
            for guest in talk.guests:  # a voice that is not there is told now, not in mid-reply
                visit.site.speakers.get(get_voice_name(visit.service, visit.user, guest, settings))


def _apply_preset(visit: PageContext, talk: Conversation) -> None:
    chosen = str(read_widget(_build_key(talk, "preset")))
    if chosen in PRESETS:
        with show_errors():
            visit.service.set(visit.user, talk.id, **PRESETS[chosen])
        for name, value in PRESETS[chosen].items():
            st.session_state[_build_key(talk, name)] = value


def _save_persona(visit: PageContext, talk: Conversation) -> None:
    said = {
        name: str(read_widget(_build_key(talk, f"your_{name}")) or "")
        for name in ("name", "description")
    }
    with show_errors():
        visit.service.set(visit.user, talk.id, user=said)


def _invite(visit: PageContext, talk: Conversation) -> None:
    with show_errors():
        visit.service.invite(visit.user, talk.id, read_widget(_build_key(talk, "table")))
