"""What may be set of a conversation; each change is kept at once.

Knows nothing of what a setting does.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from elysia.chat.talk_settings import PRESETS, TalkSettings
from elysia.chat.tree import Conversation
from elysia.voice import voices
from elysia.web.page.visit import Visit, held, told
from elysia.web.sound import voice_of

LONGEST_REPLY = 4096  # tokens, on the slider


def show(visit: Visit, talk: Conversation) -> None:
    """Every setting, in groups."""
    say, now = visit.say, TalkSettings.of(talk.settings)
    st.markdown(f"##### {say('generation')}")
    _generation(visit, talk, now)
    st.markdown(f"##### {say('who_you_are')}")
    _people(visit, talk, now)
    st.markdown(f"##### {say('voice')}")
    _voice(visit, talk, now)


def _generation(visit: Visit, talk: Conversation, now: TalkSettings) -> None:
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
        say("preset"), list(PRESETS), default=chosen, key=_key(talk, "preset"), format_func=say,
        on_change=_preset, args=(visit, talk),
    )  # fmt: skip
    _slider(
        visit,
        talk,
        now,
        "max_new_tokens",
        "max_length",
        8,
        max(LONGEST_REPLY, now.max_new_tokens),
        8,
    )
    _slider(visit, talk, now, "top_p", "top_p", 0.01, 1.0, 0.01)
    _slider(visit, talk, now, "temperature", "temperature", 0.0, 2.0, 0.01)
    _slider(visit, talk, now, "top_k", "top_k", 0, max(100, now.top_k), 1)
    _slider(visit, talk, now, "repetition_penalty", "repetition", 1.0, 2.0, 0.01)
    for name in ("memory", "knowledge", "examples"):
        label = say(
            {"memory": "use_memory", "knowledge": "use_documents", "examples": "use_examples"}[name]
        )
        st.toggle(
            label,
            getattr(now, name),
            key=_key(talk, name),
            on_change=_keep,
            args=(visit, talk, name),
        )
    _text(visit, talk, "system", "system_prompt", now.system, tall=True)


def _people(visit: Visit, talk: Conversation, now: TalkSettings) -> None:
    say = visit.say
    st.text_input(
        say("your_name"), str(now.user.get("name") or ""), key=_key(talk, "your_name"), max_chars=60,
        on_change=_keep_persona, args=(visit, talk),
    )  # fmt: skip
    st.text_area(
        say("your_description"), str(now.user.get("description") or ""), key=_key(talk, "your_description"),
        max_chars=4000, on_change=_keep_persona, args=(visit, talk),
    )  # fmt: skip
    names = {member.key: member.name for member in visit.service.cast.all(visit.user)}
    st.multiselect(
        say("table"), list(names), default=[key for key in talk.guests if key in names],
        format_func=names.__getitem__, key=_key(talk, "table"), on_change=_invite, args=(visit, talk),
    )  # fmt: skip
    if len(talk.guests) > 1:
        _slider(visit, talk, now, "round", "round", 1, 6, 1)


def _voice(visit: Visit, talk: Conversation, now: TalkSettings) -> None:
    say = visit.say
    st.toggle(
        say("voice_on"),
        now.voice,
        key=_key(talk, "voice"),
        on_change=_keep,
        args=(visit, talk, "voice"),
    )
    known = ["", *voices.names()]
    place = known.index(now.voice_name) if now.voice_name in known else 0
    st.selectbox(
        say("voice_name"), known, place, format_func=lambda name: name or say("voice_own"),
        key=_key(talk, "voice_name"), on_change=_keep, args=(visit, talk, "voice_name"),
    )  # fmt: skip
    _slider(visit, talk, now, "speed", "speed", 0.5, 2.0, 0.05)


def _slider(
    visit: Visit,
    talk: Conversation,
    now: TalkSettings,
    name: str,
    label: str,
    low: Any,
    high: Any,
    step: Any,
) -> None:
    key = _key(talk, name)
    if key not in st.session_state:
        st.session_state[key] = min(max(getattr(now, name), low), high)
    st.slider(
        visit.say(label), low, high, step=step, key=key, on_change=_keep, args=(visit, talk, name)
    )


def _text(
    visit: Visit, talk: Conversation, name: str, label: str, value: str, *, tall: bool
) -> None:
    make = st.text_area if tall else st.text_input
    make(visit.say(label), value, key=_key(talk, name), on_change=_keep, args=(visit, talk, name))


def _key(talk: Conversation, name: str) -> str:
    return f"set_{name}_{talk.id}"


def _keep(visit: Visit, talk: Conversation, name: str) -> None:
    with told():
        value = held(_key(talk, name))
        kept = visit.service.set(visit.user, talk.id, **{name: value})
        settings = TalkSettings.of(kept.settings)
        if name in ("voice", "voice_name") and settings.voice:
            for guest in talk.guests:  # a voice that is not there is told now, not in mid-reply
                visit.site.speakers.of(voice_of(visit.service, visit.user, guest, settings))


def _preset(visit: Visit, talk: Conversation) -> None:
    chosen = str(held(_key(talk, "preset")))
    if chosen in PRESETS:
        with told():
            visit.service.set(visit.user, talk.id, **PRESETS[chosen])
        for name, value in PRESETS[chosen].items():
            st.session_state[_key(talk, name)] = value


def _keep_persona(visit: Visit, talk: Conversation) -> None:
    said = {name: str(held(_key(talk, f"your_{name}")) or "") for name in ("name", "description")}
    with told():
        visit.service.set(visit.user, talk.id, user=said)


def _invite(visit: Visit, talk: Conversation) -> None:
    with told():
        visit.service.invite(visit.user, talk.id, held(_key(talk, "table")))
