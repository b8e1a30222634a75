"""What every page is served from: the chat service, its users and logins, the voices; opened once.

The model may take a minute to load: pages wait for it, and show the error when it cannot be loaded.
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
from elysia.web.auth import (
    AccessMode,
    SessionAuth,
    get_access_mode,
    load_signing_key,
    parse_allow_list,
)

KEY_FILE = "web.key"


def load_voice(name: str) -> tuple[TTSEngine, float]:
    """A voice by the name of its file, and its own speed."""
    voice = registry.find_voice(name)
    return voice.open(), voice.speed


@dataclass
class AppState:
    """Everything that a page is served from."""

    service: ChatService
    auth: SessionAuth
    access: AccessMode
    allow_list: tuple[str, ...] = ()  # by OpenID; empty: everybody whom the provider vouches for
    voices: TTSWorkerPool = field(default_factory=lambda: TTSWorkerPool(load_voice))

    @property
    def accounts(self) -> AccountStore:
        """The users."""
        return AccountStore(self.service.database)

    def close(self) -> None:
        """Stop every voice and reply, and release everything."""
        self.voices.close()
        self.service.close()
        self.service.database.close()


def build_app_state(service: ChatService, key_file: Path) -> AppState:
    """The state over an open service; logins are signed with the key in `key_file`."""
    accounts = AccountStore(service.database)
    key_file.parent.mkdir(parents=True, exist_ok=True)
    auth = SessionAuth(accounts, load_signing_key(key_file))
    access = get_access_mode(os.environ, accounts)
    return AppState(service, auth, access, parse_allow_list(os.environ, access))


def open_app_state(config: ChatServiceConfig) -> AppState:
    """Build everything; the signing key lies beside the database. Raises an ElysiaError."""
    database = config.database.removeprefix("sqlite:///")
    folder = Path("work_dirs/chat") if "://" in database else Path(database).parent
    service = build_chat_service(config)
    try:
        return build_app_state(service, folder / KEY_FILE)
    except BaseException:
        service.close()
        service.database.close()
        raise


def parse_arguments(arguments: Sequence[str]) -> ChatServiceConfig:
    """A page's command line; what it does not say comes from the environment."""
    parser = argparse.ArgumentParser(
        prog="web_demo",
        description="Each may be set in the environment, too: ELYSIA_MODEL and so on.",
    )
    for name in ChatServiceConfig.__dataclass_fields__:
        parser.add_argument("--" + name.replace("_", "-"))
    return ChatServiceConfig.from_environment(**vars(parser.parse_args(arguments)))


class StartupTask:
    """An app state that is being opened in a thread; whoever needs it waits."""

    def __init__(self, load_state: Callable[[], AppState]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="open")
        self._state: Future[AppState] = self._thread.submit(load_state)

    def result(self, timeout: float | None = None) -> AppState:
        """The state, or the error that it could not be opened for."""
        return self._state.result(timeout)

    def is_done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._state.done()

    def close(self) -> None:
        """Wait for the end, and close what was opened."""
        self._thread.shutdown()
        if self._state.exception() is None:
            self._state.result().close()


# Of this process. Not in the page's script: Streamlit runs that anew for every look at the page.
_task: list[StartupTask] = []


def start_opening(load_state: Callable[[], AppState]) -> StartupTask:
    """Open the state of this process; UsageError when there is one already."""
    if _task:
        raise UsageError("web.already_serving")
    _task.append(StartupTask(load_state))
    return _task[0]


def get_startup_task() -> StartupTask | None:
    """The task that opens this process's state, if it was started."""
    return _task[0] if _task else None


def get_app_state() -> AppState:
    """The state of this process, as soon as it is open."""
    if not _task:
        raise UsageError("web.start_with_streamlit")
    return _task[0].result()


def close_app_state() -> None:
    """Close the state of this process."""
    while _task:
        _task.pop().close()
