"""What stands around the pages in HTTP: the door, the login, her voice, headers that keep strangers out.

Knows nothing of what a page shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elysia.chat.accounts import User
from elysia.core.errors import ElysiaError, UsageError
from elysia.web import plain_page, site
from elysia.web.access import LASTS, OPENID, PASSWORD, refused
from elysia.web.site import Site
from elysia.web.sound import spoken_reply

log = logging.getLogger(__name__)

COOKIE = "elysia"
LOGIN, LOGOUT, VOICE = "/login", "/logout", "/voice"
TICKET = "ticket"  # in the URL of a sound
LONGEST_FORM = 4096  # bytes
# Images and sound come from here alone, whatever a reply or a card says; nobody frames the page.
HEADERS = {
    "content-security-policy": "img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def around(open_: Callable[[], Site], address: Callable[[], str | None]) -> dict[str, Any]:
    """What `st.App` takes beside its script: lifespan, routes, middleware. `address` says where the
    page is served.
    """

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[dict[str, Any]]:
        opening = site.begin(open_)
        try:
            yield {"opening": opening}
        finally:
            await asyncio.to_thread(site.end)

    routes = [
        Route(LOGIN, show_login, methods=["GET"]),
        Route(LOGIN, log_in, methods=["POST"]),
        Route(LOGOUT, log_out, methods=["GET"]),
        Route(VOICE + "/{talk}/{message}", speak, methods=["GET"]),
    ]
    return {
        "lifespan": lifespan,
        "routes": routes,
        "middleware": [Middleware(Door, address=address)],
    }


class Door:
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
        language = plain_page.language_of(asked.headers.get("accept-language", ""))
        opening = site.opening()
        if opening is None or not opening.done():
            return HTMLResponse(plain_page.waking(language), 503, {"retry-after": "2"})
        try:
            here = opening.site()
        except ElysiaError as error:
            return HTMLResponse(plain_page.fault(language, str(error)), 503)
        except Exception as error:
            log.exception("The site could not be opened")
            ours = f"A mistake of ours: {type(error).__name__}: {error}. The terminal says more."
            return HTMLResponse(plain_page.fault(language, ours), 503)
        if said := refused(here.access, self.address()):
            return HTMLResponse(plain_page.fault(language, said), 503)
        if here.access != PASSWORD or asked.url.path == LOGIN:
            return None
        if await run_in_threadpool(user_of, here, asked) is not None:
            return None
        return RedirectResponse(LOGIN, 303)


def voice_url(here: Site, user: str, talk: str, message: str) -> str:
    """Where a user hears a reply. An OpenID is known to the page alone, which gives a ticket."""
    path = f"{VOICE}/{talk}/{message}"
    if here.access != OPENID:
        return path
    return f"{path}?{urlencode({TICKET: here.logins.ticket(user, path)})}"


def user_of(here: Site, asked: HTTPConnection) -> User | None:
    """Who asks, by the cookie; the one local user where nobody is asked; with an OpenID, by ticket."""
    if here.access == PASSWORD:
        return here.logins.user(asked.cookies.get(COOKIE))
    if here.access == OPENID:
        return here.logins.bearer(asked.query_params.get(TICKET), asked.url.path)
    return here.accounts.local()


async def show_login(request: Request) -> Response:
    """The form."""
    language = plain_page.language_of(request.headers.get("accept-language", ""))
    return HTMLResponse(plain_page.login(language))


async def log_in(request: Request) -> Response:
    """A name and a password; the cookie, and on to the page."""
    language = plain_page.language_of(request.headers.get("accept-language", ""))
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        return HTMLResponse(plain_page.login(language, "origin"), 403)
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_FORM:
            return HTMLResponse(plain_page.login(language, "wrong"), 413)
    form = parse_qs(body.decode("utf-8", "replace"))
    name, password = (form.get(key, [""])[0] for key in ("name", "password"))
    try:
        cookie = await run_in_threadpool(site.current().logins.enter, name, password)
    except UsageError:
        return HTMLResponse(plain_page.login(language, "many"), 429)
    if cookie is None:
        return HTMLResponse(plain_page.login(language, "wrong"), 401)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE, cookie, max_age=int(LASTS), httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


async def log_out(request: Request) -> Response:
    """The cookie goes."""
    answer = RedirectResponse(LOGIN, 303)
    answer.delete_cookie(COOKIE)
    return answer


async def speak(request: Request) -> Response:
    """A reply's sound as it is made: WAV without an end that is known."""
    here = site.current()
    user = await run_in_threadpool(user_of, here, request)
    if user is None:
        return Response("Log in first.", 401)
    talk, message = request.path_params["talk"], request.path_params["message"]
    try:
        sound = await run_in_threadpool(spoken_reply, here, user.id, talk, message)
    except ElysiaError as error:
        return Response(str(error), 404)
    return StreamingResponse(sound, media_type="audio/wav", headers={"cache-control": "no-store"})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
