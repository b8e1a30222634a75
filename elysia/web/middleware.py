"""What stands around the pages in HTTP: who may see them, the login, the audio of replies, security headers.

`app_options` gives what Streamlit's app takes beside its script. The pages before the page (login, waiting,
errors) are whole HTML documents without scripts; every text in them is escaped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html import escape
from importlib import resources
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
from elysia.core.i18n import Text
from elysia.web import app_state
from elysia.web.app_state import AppState
from elysia.web.auth import SESSION_SECONDS, AccessMode, refuse_open_access
from elysia.web.i18n import get_translator, negotiate_language
from elysia.web.reply_audio import stream_reply_audio

log = logging.getLogger(__name__)

COOKIE = "elysia"
LOGIN_PATH, LOGOUT_PATH, VOICE_PATH = "/login", "/logout", "/voice"
TICKET_PARAMETER = "ticket"  # in the URL of a reply's audio
MAX_FORM_BYTES = 4096
# Images and sound come from here alone, whatever a reply or a card says; no other site frames the page.
SECURITY_HEADERS = {
    "content-security-policy": "img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def app_options(
    load_state: Callable[[], AppState], get_address: Callable[[], str | None]
) -> dict[str, Any]:
    """What `st.App` takes beside its script: lifespan, routes, middleware.

    `load_state` is called once, in a thread; `get_address` says at which address the page is served.
    """

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[dict[str, Any]]:
        task = app_state.start_opening(load_state)
        try:
            yield {"opening": task}
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
        "middleware": [Middleware(AuthMiddleware, get_address=get_address)],
    }


class AuthMiddleware:
    """Serves pages, files and the socket behind them only to those whom the access mode admits."""

    def __init__(self, app: ASGIApp, get_address: Callable[[], str | None]) -> None:
        self.app = app
        self.get_address = get_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] == "/_stcore/health":
            await self.app(scope, receive, send)
            return
        refusal = await self.build_refusal(HTTPConnection(scope))
        if refusal is None:
            await self.app(scope, receive, _add_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, _add_headers(send))

    async def build_refusal(self, connection: HTTPConnection) -> Response | None:
        """What is answered instead of the page; None for somebody who may see it."""
        language = _get_language(connection)
        task = app_state.get_startup_task()
        if task is None or not task.is_done():
            return HTMLResponse(render_waiting_page(language), 503, {"retry-after": "2"})
        try:
            state = task.result()
            refuse_open_access(state.access, self.get_address())
        except ElysiaError as error:
            return HTMLResponse(render_error_page(language, error.render(language)), 503)
        except Exception as error:
            log.exception("The page could not be opened")
            bug = Text("web.internal_error", {"type": type(error).__name__, "error": str(error)})
            return HTMLResponse(render_error_page(language, bug.render(language)), 503)
        if state.access != AccessMode.PASSWORD or connection.url.path == LOGIN_PATH:
            return None
        if await run_in_threadpool(get_user, state, connection) is not None:
            return None
        return RedirectResponse(LOGIN_PATH, 303)


def build_voice_url(state: AppState, user: str, conversation: str, message: str) -> str:
    """Where a user hears a reply. With OpenID only the page knows who somebody is: it adds a ticket."""
    path = f"{VOICE_PATH}/{conversation}/{message}"
    if state.access != AccessMode.OPENID:
        return path
    return f"{path}?{urlencode({TICKET_PARAMETER: state.auth.issue_ticket(user, path)})}"


def get_user(state: AppState, connection: HTTPConnection) -> UserAccount | None:
    """Who asks: by cookie with passwords, by ticket with OpenID, else the one local user."""
    if state.access == AccessMode.PASSWORD:
        return state.auth.get_user(connection.cookies.get(COOKIE))
    if state.access == AccessMode.OPENID:
        ticket = connection.query_params.get(TICKET_PARAMETER)
        return state.auth.check_ticket(ticket, connection.url.path)
    return state.accounts.local()


async def show_login(request: Request) -> Response:
    """The login form."""
    return HTMLResponse(render_login_page(_get_language(request)))


async def log_in(request: Request) -> Response:
    """Check a name and a password; set the cookie and go to the page."""
    language = _get_language(request)
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        return HTMLResponse(render_login_page(language, "login_origin"), 403)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return HTMLResponse(render_login_page(language, "login_wrong"), 413)
    form = parse_qs(body.decode("utf-8", "replace"))
    name, password = (form.get(key, [""])[0] for key in ("name", "password"))
    try:
        cookie = await run_in_threadpool(app_state.get_app_state().auth.log_in, name, password)
    except UsageError:
        return HTMLResponse(render_login_page(language, "too_many_tries"), 429)
    if cookie is None:
        return HTMLResponse(render_login_page(language, "login_wrong"), 401)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE, cookie, max_age=int(SESSION_SECONDS), httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


async def log_out(request: Request) -> Response:
    """Delete the cookie."""
    answer = RedirectResponse(LOGIN_PATH, 303)
    answer.delete_cookie(COOKIE)
    return answer


async def speak(request: Request) -> Response:
    """A reply's audio as it is made: a WAV whose length is not known yet."""
    state = app_state.get_app_state()
    user = await run_in_threadpool(get_user, state, request)
    if user is None:
        return Response("Log in first.", 401)
    conversation, message = request.path_params["talk"], request.path_params["message"]
    try:
        audio = await run_in_threadpool(stream_reply_audio, state, user.id, conversation, message)
    except ElysiaError as error:
        return Response(str(error), 404)
    return StreamingResponse(audio, media_type="audio/wav", headers={"cache-control": "no-store"})


def _get_language(connection: HTTPConnection) -> str:
    return negotiate_language(connection.headers.get("accept-language", ""))


def _add_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers


# The pages before the page


def render_waiting_page(language: str) -> str:
    """Shown while the model loads; reloads itself."""
    text = escape(get_translator(language)("waking"))
    return _render_page(language, f"<p>{text}</p>", reload=True)


def render_error_page(language: str, sentence: str) -> str:
    """What is wrong, and what to do."""
    title = escape(get_translator(language)("not_ready"))
    return _render_page(language, f"<p>{title}</p><p>{escape(sentence)}</p>")


def render_login_page(language: str, problem: str = "") -> str:
    """The login form; `problem` is the key of a text to show above it."""
    t = get_translator(language)
    alert = f'<p class="wrong" role="alert">{escape(t(problem))}</p>' if problem else ""
    return _render_page(
        language,
        f"""{alert}<form method="post" action="/login">
<label for="name">{escape(t("login_name"))}</label>
<input id="name" name="name" autocomplete="username" required maxlength="100" autofocus>
<label for="password">{escape(t("login_password"))}</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>{escape(t("login_enter"))}</button></form>""",
    )


def _render_page(language: str, body: str, *, reload: bool = False) -> str:
    refresh = '<meta http-equiv="refresh" content="2">' if reload else ""
    title = escape(get_translator(language)("title"))
    style = resources.files("elysia.web").joinpath("page.css").read_text("utf-8")
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">{refresh}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>"
        f"<body><main><h1>{title}</h1>{body}</main></body></html>"
    )
