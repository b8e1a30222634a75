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

from elysia.app.chat_service import ChatServiceConfig, build_chat_service
from elysia.chat.accounts import AccountStore
from elysia.chat.service import ChatService
from elysia.core.errors import UsageError
from elysia.voice import registry
from elysia.voice.base import TTSEngine
from elysia.voice.streaming import TTSWorkerPool
from elysia.web.auth import SessionAuth, get_access_mode, load_signing_key, parse_allow_list

KEY_FILE = "web.key"


def load_voice(name: str) -> tuple[TTSEngine, float]:
    """A voice by the name of its file, and its own speed."""
    found = registry.find_voice(name)
    return found.open(), found.speed


@dataclass
class AppState:
    """Everything that a page is served from."""

    service: ChatService
    logins: SessionAuth
    access: str
    allowed: tuple[str, ...] = ()  # by OpenID; none: everybody whom the provider vouches for
    speakers: TTSWorkerPool = field(default_factory=lambda: TTSWorkerPool(load_voice))

    @property
    def accounts(self) -> AccountStore:
        """Its users."""
        return AccountStore(self.service.database)

    def close(self) -> None:
        """Silence, stop and let go of everything."""
        self.speakers.close()
        self.service.close()
        self.service.database.close()


def build_app_state(service: ChatService, key_file: Path) -> AppState:
    """A site over an open service; its logins are signed with the key in `key_file`."""
    accounts = AccountStore(service.database)
    key_file.parent.mkdir(parents=True, exist_ok=True)
    logins = SessionAuth(accounts, load_signing_key(key_file))
    access = get_access_mode(os.environ, accounts)
    return AppState(service, logins, access, parse_allow_list(os.environ, access))


def open_app_state(home: ChatServiceConfig) -> AppState:
    """The site of a home; its key lies beside the database. An ElysiaError when it cannot be."""
    database = home.database.removeprefix("sqlite:///")
    folder = Path("work_dirs/chat") if "://" in database else Path(database).parent
    service = build_chat_service(home)
    try:
        return build_app_state(service, folder / KEY_FILE)
    except BaseException:
        service.close()
        service.database.close()
        raise


def parse_arguments(arguments: Sequence[str]) -> ChatServiceConfig:
    """What a page's command line asks for; the environment stands behind it."""
    parser = argparse.ArgumentParser(
        prog="web_demo",
        description="Each may stand in the environment too: ELYSIA_MODEL and so on.",
    )
    for name in ChatServiceConfig.__dataclass_fields__:
        parser.add_argument("--" + name.replace("_", "-"))
    return ChatServiceConfig.from_environment(**vars(parser.parse_args(arguments)))


class StartupTask:
    """A site that is being opened in a thread; whoever needs it waits."""

    def __init__(self, open_: Callable[[], AppState]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="open")
        self._site: Future[AppState] = self._thread.submit(open_)

    def site(self, timeout: float | None = None) -> AppState:
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


_opening: list[
    StartupTask
] = []  # of this process: a page's script is run anew for every look at it


def start_opening(open_: Callable[[], AppState]) -> StartupTask:
    """Open the site of this process; UsageError when there is one already."""
    if _opening:
        raise UsageError("This process serves a site already.")
    _opening.append(StartupTask(open_))
    return _opening[0]


def get_startup_task() -> StartupTask | None:
    """The opening of this process's site, if it was begun."""
    return _opening[0] if _opening else None


def get_app_state() -> AppState:
    """The site of this process, as soon as it is open."""
    if not _opening:
        raise UsageError(
            "The page is started with `streamlit run web_demo/app.py`, from the project's folder."
        )
    return _opening[0].site()


def close_app_state() -> None:
    """Close the site of this process."""
    while _opening:
        _opening.pop().close()
