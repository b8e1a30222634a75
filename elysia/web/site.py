"""What every page stands on: the chat service, its users, their logins, voices; opened once.

The model may take a minute to load: pages wait for it, and are told in a sentence when it fails.
Knows nothing of Streamlit or Gradio.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from elysia.app.talk import TalkHome, open_talk
from elysia.chat.accounts import Accounts
from elysia.chat.service import ChatService
from elysia.core.errors import UsageError
from elysia.voice import voices
from elysia.voice.base import Voice
from elysia.voice.speaker import Speakers
from elysia.web.access import Logins, access_of, allowed_of, signing_key

KEY = "web.key"


def open_voice(name: str) -> tuple[Voice, float]:
    """A voice by the name of its file, and its own speed."""
    found = voices.find(name)
    return found.open(), found.speed


@dataclass
class Site:
    """Everything that a page is served from."""

    service: ChatService
    logins: Logins
    access: str
    allowed: tuple[str, ...] = ()  # by OpenID; none: everybody whom the provider vouches for
    speakers: Speakers = field(default_factory=lambda: Speakers(open_voice))

    @property
    def accounts(self) -> Accounts:
        """Its users."""
        return Accounts(self.service.database)

    def close(self) -> None:
        """Silence, stop and let go of everything."""
        self.speakers.close()
        self.service.close()
        self.service.database.close()


def site_of(service: ChatService, key_file: Path) -> Site:
    """A site over an open service; its logins are signed with the key in `key_file`."""
    accounts = Accounts(service.database)
    key_file.parent.mkdir(parents=True, exist_ok=True)
    logins = Logins(accounts, signing_key(key_file))
    access = access_of(os.environ, accounts)
    return Site(service, logins, access, allowed_of(os.environ, access))


def open_site(home: TalkHome) -> Site:
    """The site of a home; its key lies beside the database. An ElysiaError when it cannot be."""
    database = home.database.removeprefix("sqlite:///")
    folder = Path("work_dirs/chat") if "://" in database else Path(database).parent
    service = open_talk(home)
    try:
        return site_of(service, folder / KEY)
    except BaseException:
        service.close()
        service.database.close()
        raise


def home_of(arguments: Sequence[str]) -> TalkHome:
    """What a page's command line asks for; the environment stands behind it."""
    parser = argparse.ArgumentParser(
        prog="web_demo",
        description="Each may stand in the environment too: ELYSIA_MODEL and so on.",
    )
    for name in TalkHome.__dataclass_fields__:
        parser.add_argument("--" + name.replace("_", "-"))
    return TalkHome.of(**vars(parser.parse_args(arguments)))


class Opening:
    """A site that is being opened in a thread; whoever needs it waits."""

    def __init__(self, open_: Callable[[], Site]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="open")
        self._site: Future[Site] = self._thread.submit(open_)

    def site(self, timeout: float | None = None) -> Site:
        """The site; the ElysiaError of an opening that failed."""
        return self._site.result(timeout)

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._site.done()

    def close(self) -> None:
        """Wait for the opening, and close what it opened."""
        self._thread.shutdown()
        if self._site.exception() is None:
            self._site.result().close()


_opening: list[Opening] = []  # of this process: a page's script is run anew for every look at it


def begin(open_: Callable[[], Site]) -> Opening:
    """Open the site of this process; UsageError when there is one already."""
    if _opening:
        raise UsageError("This process serves a site already.")
    _opening.append(Opening(open_))
    return _opening[0]


def opening() -> Opening | None:
    """The opening of this process's site, if it was begun."""
    return _opening[0] if _opening else None


def current() -> Site:
    """The site of this process, as soon as it is open."""
    if not _opening:
        raise UsageError(
            "The page is started with `streamlit run web_demo/app.py`, from the project's folder."
        )
    return _opening[0].site()


def end() -> None:
    """Close the site of this process."""
    while _opening:
        _opening.pop().close()
