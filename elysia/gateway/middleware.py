"""What every request passes before its endpoint: checks of host, key, body size and body speed.

Plain ASGI, so that streams pass through untouched.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elysia.gateway.api_errors import ApiError
from elysia.gateway.keys import RateLimiter
from elysia.gateway.metrics import GatewayMetrics

OPEN_PATHS = ("/health", "/ready")  # for load balancers, which hold no key
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class GatewayMiddleware:
    """Refuses a request before its body is read, or while it is.

    Args:
        max_body_bytes: the largest body.
        body_timeout: seconds in which a body must have arrived.
        local: answer only requests that name this machine. Without a key this keeps out web pages whose
            own host name resolves to this machine (DNS rebinding).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: RateLimiter,
        metrics: GatewayMetrics,
        max_body_bytes: int,
        body_timeout: float,
        local: bool,
    ) -> None:
        self.app = app
        self.limiter = limiter
        self.metrics = metrics
        self.max_body_bytes = max_body_bytes
        self.body_timeout = body_timeout
        self.local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def watch_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._limit_body(receive), watch_status)
        except ApiError as error:
            if not status:
                await error.response()(scope, receive, watch_status)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            # 499, as nginx has it: the client left before an answer began
            self.metrics.requests.labels(route, status or 499).inc()

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.local and name not in LOCAL_NAMES:
            raise ApiError("gateway.foreign_host", 403)
        if scope["path"] not in OPEN_PATHS:
            usage = self.limiter.identify(headers.get("authorization"))
            scope.setdefault("state", {})["usage"] = usage
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.max_body_bytes:
            raise self._too_large()

    def _limit_body(self, receive: Receive) -> Receive:
        """`receive` that counts the bytes of a body and waits for it no longer than `body_timeout`."""
        loop = asyncio.get_running_loop()
        size, complete, deadline = 0, False, loop.time() + self.body_timeout

        async def receive_limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise ApiError("gateway.body_too_slow", 408) from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > self.max_body_bytes:
                raise self._too_large()
            return message

        return receive_limited

    def _too_large(self) -> ApiError:
        return ApiError("gateway.body_too_large", 413, limit=self.max_body_bytes)
