"""What stands around the pages in HTTP: the door, the login, her voice, headers that keep strangers out.

Knows nothing of what a page shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html import escape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elysia.chat.accounts import UserAccount
from elysia.core.errors import ElysiaError, UsageError
from elysia.web import app_state
from elysia.web.app_state import AppState
from elysia.web.auth import OPENID, PASSWORD, SESSION_SECONDS, explain_refusal
from elysia.web.reply_audio import stream_reply_audio

log = logging.getLogger(__name__)

COOKIE = "elysia"
LOGIN_PATH, LOGOUT_PATH, VOICE_PATH = "/login", "/logout", "/voice"
TICKET_PARAMETER = "ticket"  # in the URL of a sound
MAX_FORM_BYTES = 4096  # bytes
# Images and sound come from here alone, whatever a reply or a card says; nobody frames the page.
SECURITY_HEADERS = {
    "content-security-policy": "img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def app_options(open_: Callable[[], AppState], address: Callable[[], str | None]) -> dict[str, Any]:
    """What `st.App` takes beside its script: lifespan, routes, middleware. `address` says where the
    page is served.
    """

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[dict[str, Any]]:
        opening = app_state.start_opening(open_)
        try:
            yield {"opening": opening}
        finally:
            await asyncio.to_thread(app_state.close_app_state)

    routes = [
        Route(LOGIN_PATH, show_login, methods=["GET"]),
        Route(LOGIN_PATH, log_in, methods=["POST"]),
        Route(LOGOUT_PATH, log_out, methods=["GET"]),
        Route(VOICE_PATH + "/{talk}/{message}", speak, methods=["GET"]),
    ]
    return {
        "lifespan": lifespan,
        "routes": routes,
        "middleware": [Middleware(AuthMiddleware, address=address)],
    }


class AuthMiddleware:
    """Lets in whom the site's access lets in: to pages, files and the socket behind them alike."""

    def __init__(self, app: ASGIApp, address: Callable[[], str | None]) -> None:
        self.app = app
        self.address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] == "/_stcore/health":
            await self.app(scope, receive, send)
            return
        closed = await self.closed(HTTPConnection(scope))
        if closed is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await closed(scope, receive, _with_headers(send))

    async def closed(self, asked: HTTPConnection) -> Response | None:
        """What is answered instead of the page; None: come in."""
        language = negotiate_language(asked.headers.get("accept-language", ""))
        opening = app_state.get_startup_task()
        if opening is None or not opening.done():
            return HTMLResponse(render_waking_page(language), 503, {"retry-after": "2"})
        try:
            here = opening.site()
        except ElysiaError as error:
            return HTMLResponse(render_error_page(language, str(error)), 503)
        except Exception as error:
            log.exception("The site could not be opened")
            ours = f"A mistake of ours: {type(error).__name__}: {error}. The terminal says more."
            return HTMLResponse(render_error_page(language, ours), 503)
        if said := explain_refusal(here.access, self.address()):
            return HTMLResponse(render_error_page(language, said), 503)
        if here.access != PASSWORD or asked.url.path == LOGIN_PATH:
            return None
        if await run_in_threadpool(get_user, here, asked) is not None:
            return None
        return RedirectResponse(LOGIN_PATH, 303)


def build_voice_url(here: AppState, user: str, talk: str, message: str) -> str:
    """Where a user hears a reply. An OpenID is known to the page alone, which gives a ticket."""
    path = f"{VOICE_PATH}/{talk}/{message}"
    if here.access != OPENID:
        return path
    return f"{path}?{urlencode({TICKET_PARAMETER: here.logins.ticket(user, path)})}"


def get_user(here: AppState, asked: HTTPConnection) -> UserAccount | None:
    """Who asks, by the cookie; the one local user where nobody is asked; with an OpenID, by ticket."""
    if here.access == PASSWORD:
        return here.logins.user(asked.cookies.get(COOKIE))
    if here.access == OPENID:
        return here.logins.bearer(asked.query_params.get(TICKET_PARAMETER), asked.url.path)
    return here.accounts.local()


async def show_login(request: Request) -> Response:
    """The form."""
    language = negotiate_language(request.headers.get("accept-language", ""))
    return HTMLResponse(render_login_page(language))


async def log_in(request: Request) -> Response:
    """A name and a password; the cookie, and on to the page."""
    language = negotiate_language(request.headers.get("accept-language", ""))
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        return HTMLResponse(render_login_page(language, "origin"), 403)
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM_BYTES:
            return HTMLResponse(render_login_page(language, "wrong"), 413)
    form = parse_qs(body.decode("utf-8", "replace"))
    name, password = (form.get(key, [""])[0] for key in ("name", "password"))
    try:
        cookie = await run_in_threadpool(app_state.get_app_state().logins.enter, name, password)
    except UsageError:
        return HTMLResponse(render_login_page(language, "many"), 429)
    if cookie is None:
        return HTMLResponse(render_login_page(language, "wrong"), 401)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE, cookie, max_age=int(SESSION_SECONDS), httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


async def log_out(request: Request) -> Response:
    """The cookie goes."""
    answer = RedirectResponse(LOGIN_PATH, 303)
    answer.delete_cookie(COOKIE)
    return answer


async def speak(request: Request) -> Response:
    """A reply's sound as it is made: WAV without an end that is known."""
    here = app_state.get_app_state()
    user = await run_in_threadpool(get_user, here, request)
    if user is None:
        return Response("Log in first.", 401)
    talk, message = request.path_params["talk"], request.path_params["message"]
    try:
        sound = await run_in_threadpool(stream_reply_audio, here, user.id, talk, message)
    except ElysiaError as error:
        return Response(str(error), 404)
    return StreamingResponse(sound, media_type="audio/wav", headers={"cache-control": "no-store"})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


PAGE_WORDS = {
    "zh": {
        "title": "爱莉希雅",
        "waking": "她正在醒来……模型载入后，这一页会自己打开。",
        "fault": "现在还不能聊天",
        "name": "名字",
        "password": "密码",
        "enter": "进来吧",
        "wrong": "名字或密码不对。",
        "many": "试错太多次了，请等一分钟。",
        "origin": "这张表单不是从本页发出的。",
    },
    "en": {
        "title": "Elysia",
        "waking": "She is waking up… This page opens by itself once the model is loaded.",
        "fault": "Nobody can talk yet",
        "name": "Name",
        "password": "Password",
        "enter": "Come in",
        "wrong": "Name or password is wrong.",
        "many": "Too many wrong passwords; wait a minute.",
        "origin": "This form was not sent from this page.",
    },
}
PAGE_STYLE = """
:root { color-scheme: light dark; --back: #fff8fa; --card: #fff; --text: #3b2b35;
  --accent: #d6577f; --line: #f3d7e0 }
@media (prefers-color-scheme: dark) {
  :root { --back: #1d171c; --card: #292028; --text: #f5e9ef; --accent: #f28bab; --line: #44333f } }
body { margin: 0; min-height: 100vh; display: grid; place-items: center;
  background: var(--back); color: var(--text);
  font: 16px/1.6 "Source Sans 3", "Noto Sans SC", "Noto Sans CJK SC", system-ui, sans-serif }
main { box-sizing: border-box; width: min(24rem, calc(100vw - 2rem)); padding: 2rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 1.2rem }
h1 { margin: 0 0 1rem; font-size: 1.4rem; color: var(--accent) }
label { display: block; margin: .8rem 0 .2rem }
input { box-sizing: border-box; width: 100%; font: inherit; padding: .5rem .7rem;
  border: 1px solid var(--line); border-radius: .6rem; background: var(--back); color: inherit }
button { width: 100%; margin-top: 1.2rem; padding: .6rem; font: inherit; border: 0; border-radius: .6rem;
  background: var(--accent); color: #fff; cursor: pointer }
p { overflow-wrap: anywhere } .wrong { color: #d32f2f }
"""


def negotiate_language(accepted: str) -> str:
    """zh or en, from an Accept-Language header.

    >>> negotiate_language("zh-CN,zh;q=0.9,en;q=0.8"), negotiate_language("de, en;q=0.5"), negotiate_language("")
    ('zh', 'en', 'en')
    """
    return "zh" if accepted.strip().lower().startswith("zh") else "en"


def render_waking_page(language: str) -> str:
    """Shown while the model loads; looks again by itself."""
    said = PAGE_WORDS[language]
    return _render_page(language, f"<p>{escape(said['waking'])}</p>", refresh=True)


def render_error_page(language: str, sentence: str) -> str:
    """What is wrong, and what to do."""
    said = PAGE_WORDS[language]
    return _render_page(language, f"<p>{escape(said['fault'])}</p><p>{escape(sentence)}</p>")


def render_login_page(language: str, wrong: str = "") -> str:
    """The form; `wrong` is one of 'wrong', 'many', 'origin'."""
    said = PAGE_WORDS[language]
    told = f'<p class="wrong" role="alert">{escape(said[wrong])}</p>' if wrong else ""
    return _render_page(
        language,
        f"""{told}<form method="post" action="/login">
<label for="name">{escape(said["name"])}</label>
<input id="name" name="name" autocomplete="username" required maxlength="100" autofocus>
<label for="password">{escape(said["password"])}</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>{escape(said["enter"])}</button></form>""",
    )


def _render_page(language: str, body: str, *, refresh: bool = False) -> str:
    again = '<meta http-equiv="refresh" content="2">' if refresh else ""
    title = escape(PAGE_WORDS[language]["title"])
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">{again}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{PAGE_STYLE}</style></head>"
        f"<body><main><h1>{title}</h1>{body}</main></body></html>"
    )
