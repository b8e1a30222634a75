"""Builds the application and serves it until it is told to stop.

Without a key it refuses to listen beyond this machine. It stops gracefully: no new requests, running ones
end, then the engines are closed.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI

from elysia import __version__
from elysia.app import ChatFormat
from elysia.core.errors import DeviceError, UsageError
from elysia.engines.base import Engine, Sampling
from elysia.gateway import api_errors, speech_routes
from elysia.gateway.admission_queue import AdmissionQueue
from elysia.gateway.keys import RateLimiter
from elysia.gateway.middleware import GatewayMiddleware
from elysia.gateway.model_registry import ModelRegistry, ServedModel
from elysia.gateway.routes import GatewayState, build_router
from elysia.voice.registry import VoiceFile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatewaySettings:
    """Where to listen, and how much to admit.

    For each key: `requests_per_minute` and `max_concurrent`. For each model: `max_waiting` requests in
    its queue. For each body: `max_body_bytes`, and `body_timeout` seconds to arrive. When the server
    stops, running replies have `drain_seconds` to end.
    """

    host: str = "127.0.0.1"
    port: int = 23333
    keys: tuple[str, ...] = field(default=(), repr=False)
    requests_per_minute: int | None = None
    max_concurrent: int | None = None
    max_waiting: int = 32
    max_body_bytes: int = 2_000_000
    body_timeout: float = 30.0
    drain_seconds: float = 30.0
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if not self.keys and not is_loopback(self.host):
            raise UsageError("gateway.open_without_key", host=self.host)
        limits = (
            ("rate", self.requests_per_minute, 1),
            ("together", self.max_concurrent, 1),
            ("queue", self.max_waiting, 0),
            ("max_body", self.max_body_bytes, 1),
        )
        for name, value, least in limits:
            if value is not None and value < least:
                raise UsageError("gateway.limit_too_low", name=name, value=value, least=least)


def is_loopback(host: str) -> bool:
    """Whether a host name can be reached from this machine only.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def build_app(
    models: Sequence[tuple[str, Engine, ChatFormat]],
    settings: GatewaySettings,
    voices: Mapping[str, VoiceFile] | None = None,
) -> FastAPI:
    """The ASGI application over loaded models and voices, by name; it closes them when it ends."""
    registry = ModelRegistry(
        {
            name: ServedModel(
                name, engine, chat_format, AdmissionQueue(engine.slots, settings.max_waiting)
            )
            for name, engine, chat_format in models
        }
    )
    limiter = RateLimiter(
        settings.keys, rate=settings.requests_per_minute, concurrent=settings.max_concurrent
    )
    state = GatewayState(registry, limiter, defaults=settings.sampling)
    voice_registry = speech_routes.VoiceRegistry(voices or {}, settings.max_waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        voice_registry.close()
        registry.close()

    app = FastAPI(
        title="Elysia", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.include_router(build_router(state))
    app.include_router(speech_routes.build_speech_router(state, voice_registry))
    api_errors.install_error_handlers(app)
    app.state.models = registry
    app.state.voices = voice_registry
    app.add_middleware(
        GatewayMiddleware,
        limiter=limiter,
        metrics=state.metrics,
        max_body_bytes=settings.max_body_bytes,
        body_timeout=settings.body_timeout,
        local=not settings.keys,
    )
    return app


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which tells the application (/ready) that it is about to stop."""

    def handle_exit(self, sig: int, frame: object) -> None:
        """See uvicorn."""
        self.config.app.state.draining = True  # type: ignore[union-attr]
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def bind_socket(settings: GatewaySettings) -> socket.socket:
    """A bound socket. Raises DeviceError when the port is taken or not permitted."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(256)
    except OSError as error:
        sock.close()
        raise DeviceError(
            "gateway.port_taken", host=settings.host, port=settings.port, reason=error.strerror
        ) from error
    return sock


def serve(app: FastAPI, settings: GatewaySettings, sock: socket.socket) -> None:
    """Serve `app` on `sock` until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # for privacy: no addresses and queries in logs
        timeout_graceful_shutdown=int(settings.drain_seconds),
        timeout_keep_alive=30,
        server_header=False,
    )
    DrainingServer(config).run(sockets=[sock])
