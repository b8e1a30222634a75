"""What every request passes before an endpoint sees it: its host, its key, its size, its pace.

Pure ASGI, so that streams pass through untouched. Knows nothing of models.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elysia.gateway.api_errors import ApiError
from elysia.gateway.keys import RateLimiter
from elysia.gateway.metrics import GatewayMetrics

OPEN_PATHS = ("/health", "/ready")  # for load balancers, which hold no key
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class GatewayMiddleware:
    """Refuses before the body is read, or while it is.

    Args:
        largest: bytes of a body.
        patience: seconds in which a body must have come.
        local: whether only requests that name this machine are answered. Without a key that keeps
            out web pages that have their own name lead here (DNS rebinding).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        gate: RateLimiter,
        metrics: GatewayMetrics,
        largest: int,
        patience: float,
        local: bool,
    ) -> None:
        self.app = app
        self.gate = gate
        self.metrics = metrics
        self.largest = largest
        self.patience = patience
        self.local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told: dict[str, Any] = {"status": 0}

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._paced(scope, receive), watched)
        except ApiError as error:
            if not told["status"]:
                await error.response()(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, told["status"] or 499).inc()

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.local and name not in LOCAL_NAMES:
            raise ApiError(403, "This server answers only under this machine's own names.")
        if scope["path"] not in OPEN_PATHS:
            holder = self.gate.holder(headers.get("authorization"))
            scope.setdefault("state", {})["holder"] = holder
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.largest:
            raise self._too_large()

    def _paced(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that counts a body's bytes and does not wait for ever."""
        loop = asyncio.get_running_loop()
        read, whole, until = 0, False, loop.time() + self.patience

        async def paced() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, "The body did not come in time.") from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self.largest:
                raise self._too_large()
            return message

        return paced

    def _too_large(self) -> ApiError:
        return ApiError(413, f"The body is larger than {self.largest} bytes.")
