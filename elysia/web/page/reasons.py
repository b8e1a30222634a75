"""The director's reasons in the page's language.

Knows the sentences of `chat.director`; what it does not know it shows as it is.
"""

from __future__ import annotations

from elysia.chat.tree import Line
from elysia.web.page.visit import Visit
from elysia.web.text import plain

SAID = {
    "asked to answer anew": "because_again",
    "the only one": "because_only",
    "everyone was asked": "because_everyone",
    "spoke last, and the user goes on with it": "because_goes_on",
    "was silent longest": "because_silent",
}


def because(visit: Visit, line: Line) -> str:
    """Why it was this one who spoke, as markdown."""
    reason = str(line.details.get("reason") or "")
    if reason.startswith("named by the user"):
        return plain(visit.say("because_named"))
    if reason.startswith("named by "):
        return plain(visit.say("because_called", name=reason.removeprefix("named by ")), 120)
    return plain(visit.say(SAID[reason]) if reason in SAID else reason, 120)
