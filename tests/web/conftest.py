"""The Streamlit page served from a process of its own, and a browser to look at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import answers, free_port
from tests.web.steps import PATIENCE

ROOT = Path(__file__).parents[2]
# The shell is the same browser without windows: the tests of a page took 28 s of a core with it, 34 s without.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser")
CHROMIUM = next(filter(None, map(shutil.which, PROGRAMS)), "/usr/bin/chromium")
WINDOW = {"locale": "en-US", "viewport": {"width": 1200, "height": 850}}
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def served(
    folder: Path,
    *flags: str,
    script: str = "tests/web/served.py",
    wait: bool = True,
    arguments: tuple[str, ...] | None = None,
    **environ: str,
):
    """A page over the stand-in engine, at a free port; its URL."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("ELYSIA_")},
        "PYTHONPATH": str(ROOT), **environ,
    }  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", script, "--server.port", str(port), *flags, "--", *((str(folder),) if arguments is None else arguments)],
            cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            end = time.monotonic() + PATIENCE / 1000
            while not answers(url + ("/" if wait else "/_stcore/health")):
                if time.monotonic() > end or process.poll() is not None:
                    raise AssertionError((folder / "server.log").read_text())
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The URL of a page, and the folder of its data."""
    folder = tmp_path_factory.mktemp("site")
    with served(folder) as url:
        yield url, folder


@pytest.fixture
def let_go(site):
    """A held reply waits half-way until this is called."""
    file = site[1] / "free"
    file.unlink(missing_ok=True)
    yield file.touch
    file.touch()


@pytest.fixture(scope="module")
def browser(request):
    """Headless Chromium; skips where there is none. A file of tests may name another AUTOPLAY."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no chromium at {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as p:
        autoplay = getattr(request.module, "AUTOPLAY", "user-gesture-required")
        flags = [*FLAGS, f"--autoplay-policy={autoplay}"]
        browser = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def window(browser):
    """A window that keeps what it has loaded: a new one takes seconds to begin."""
    context = browser.new_context(**WINDOW)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def look(browser, window, request):
    """Open the page in a new tab; with options, as somebody new: look(locale="zh-CN")."""
    opened = []

    def look(path: str = "/", *, url: str | None = None, **options):
        if not options:
            page = window.new_page()
            opened.append(page)
            page.goto((url or request.getfixturevalue("site")[0]) + path)
            return page
        context = browser.new_context(**{**WINDOW, **options})
        context.set_default_timeout(PATIENCE)
        opened.append(context)
        page = context.new_page()
        page.goto((url or request.getfixturevalue("site")[0]) + path)
        return page

    yield look
    for opened_page in opened:
        opened_page.close()


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A page with two users that have passwords."""
    from elysia.chat.accounts import AccountStore
    from elysia.store.database import open_database

    folder = tmp_path_factory.mktemp("people")
    database = open_database(str(folder / "chat.db"))
    for name in ("anna", "bela"):
        AccountStore(database).add(name, f"password of {name}")
    database.close()
    with served(folder) as url:
        yield url
