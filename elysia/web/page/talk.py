"""A conversation on the page: its lines, what is being written, the place to write.

Replies belong to the service: the page only looks at them, and a look that ends harms none. Knows
nothing of how a line is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from elysia.chat.talk_settings import TalkSettings
from elysia.chat.transcript import exported
from elysia.chat.tree import Conversation, Line
from elysia.core.errors import ElysiaError, StoreError
from elysia.web.page import documents, lines, memory, player, scroll, settings
from elysia.web.page.visit import AVATAR, Visit, go, held, notice, told
from elysia.web.sound import warm
from elysia.web.text import plain

GLANCE = 0.2  # seconds between looks at a reply that grows
SHOWN, MORE = 24, 60  # newest lines; each has buttons, and a page of hundreds is slow
LONGEST = 20_000  # characters in the place to write
LONGEST_TITLE = 36
VIEWS = ("talk", "memory", "documents", "settings")
ICONS = {
    "talk": ":material/chat_bubble:", "memory": ":material/psychology:",
    "documents": ":material/menu_book:", "settings": ":material/tune:",
}  # fmt: skip


def show(visit: Visit, id: str) -> None:
    """The conversation, or what else is to be seen of it."""
    try:
        talk = visit.service.store.get(visit.user, id)
    except StoreError:
        st.info(visit.say("gone_talk"))
        return
    view = _head(visit, talk)
    if view == "memory":
        memory.show(visit, talk)
    elif view == "documents":
        documents.show(visit, talk)
    elif view == "settings":
        settings.show(visit, talk)
    else:
        _talk(visit, talk)


def _head(visit: Visit, talk: Conversation) -> str:
    say = visit.say
    members = [member for key in talk.guests if (member := visit.member(key))]
    with st.container(horizontal=True, vertical_alignment="center", key="head", gap="small"):
        for member in members[:4]:
            st.image(visit.picture(member, AVATAR), width=44, alt=member.name)
        st.markdown(f"#### {plain(talk.title, LONGEST_TITLE)}")
    with st.container(
        horizontal=True,
        vertical_alignment="center",
        key="head_views",
        horizontal_alignment="distribute",
    ):
        view = st.segmented_control(
            say("view_talk"), VIEWS, default="talk", key=f"view_{talk.id}", required=True,
            format_func=lambda name: f"{ICONS[name]} {say('view_' + name)}",
            label_visibility="collapsed",
        )  # fmt: skip
        with st.popover(
            "", icon=":material/more_horiz:", type="tertiary", help=say("more"), key="menu"
        ):
            _menu(visit, talk)
    return str(view or "talk")


def _menu(visit: Visit, talk: Conversation) -> None:
    say = visit.say
    key = f"title_{talk.id}"
    st.session_state[key] = talk.title  # it changes by itself, too: with the first message
    st.text_input(
        say("name_of_talk"), key=key, max_chars=60, on_change=_rename, args=(visit, talk.id)
    )
    st.button(
        say("undo"),
        key="undo",
        icon=":material/undo:",
        type="tertiary",
        on_click=_undo,
        args=(visit, talk.id),
    )
    st.download_button(
        say("export"), lambda: exported(visit.service, visit.user, talk.id), f"{talk.id}.jsonl",
        "application/jsonl", icon=":material/download:", type="tertiary", key="export", on_click="ignore",
    )  # fmt: skip
    st.divider()
    st.caption(say("delete_talk_help"))
    st.button(
        say("delete_talk"), key="delete_talk", icon=":material/delete_forever:",
        on_click=_delete_talk, args=(visit, talk.id),
    )  # fmt: skip


def _talk(visit: Visit, talk: Conversation) -> None:
    say, service = visit.say, visit.service
    busy = service.busy(visit.user, talk.id)  # first: what is idle now has whole lines
    shown = service.lines(visit.user, talk.id)
    tail = len(shown) if not busy else _first_new(shown)
    most = st.session_state.get("more_lines", SHOWN)
    if tail > most:
        st.button(
            say("earlier", count=min(MORE, tail - most)), key="earlier", type="tertiary",
            icon=":material/expand_less:", on_click=_earlier, args=(most + MORE,),
        )  # fmt: skip
    for number, line in enumerate(shown[max(0, tail - most) : tail], max(0, tail - most)):
        lines.show(visit, talk, line, newest=number == len(shown) - 1, busy=busy)
    if busy:
        st.fragment(_growing, run_every=GLANCE)(visit, talk, tail, len(shown))
    with st.bottom:
        if busy:
            st.button(
                say("stop"),
                key="stop",
                icon=":material/stop_circle:",
                on_click=_stop,
                args=(visit, talk.id),
            )
        st.chat_input(
            say("say"),
            key=f"say_{talk.id}",
            max_chars=LONGEST,
            on_submit=_say,
            args=(visit, talk.id),
        )
    scroll.follow(f"{talk.id} {len(shown)}", busy)
    chosen = TalkSettings.of(talk.settings)
    if chosen.voice:
        warm(visit.site, visit.user, talk.guests, chosen)
        player.show(visit, talk.id, shown)


def _first_new(shown: Sequence[Line]) -> int:
    """Where the lines begin that the round adds: behind the user's newest message."""
    said = [number for number, line in enumerate(shown) if line.role == "user"]
    return said[-1] + 1 if said else 0


def _growing(visit: Visit, talk: Conversation, tail: int, count: int) -> None:
    """What is being written. Looked at again and again; when it has ended, the page is drawn anew."""
    try:
        busy = visit.service.busy(visit.user, talk.id)
        shown = visit.service.lines(visit.user, talk.id)
    except ElysiaError:  # deleted meanwhile, in another window
        st.rerun()
    for line in shown[tail:]:
        lines.show(visit, talk, line, newest=False, busy=True)
    if not busy or len(shown) != count:
        st.rerun()


def _earlier(count: int) -> None:
    st.session_state["more_lines"] = count


def _say(visit: Visit, id: str) -> None:
    # Here and not at the end of a run, which the next click would end before it came so far.
    if text := held(f"say_{id}"):
        with told():
            player.begin(id, visit.service.send(visit.user, id, str(text)))


def _stop(visit: Visit, id: str) -> None:
    with told():
        visit.service.stop(visit.user, id)
    player.silence()


def _undo(visit: Visit, id: str) -> None:
    with told():
        notice(visit.say("undone", text=visit.service.undo(visit.user, id)))
    player.silence()


def _rename(visit: Visit, id: str) -> None:
    with told():
        title = str(held(f"title_{id}") or "")
        visit.service.store.change(visit.user, id, title=title)


def _delete_talk(visit: Visit, id: str) -> None:
    with told():
        visit.service.remove(visit.user, id)
        go(None)
    player.silence()
