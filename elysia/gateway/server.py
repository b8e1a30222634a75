"""The application put together, and served until it is told to stop.

Refuses to listen beyond this machine without a key. Stopping is graceful: no new requests, running
ones end, then the engines are closed.
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
    """Where to listen and how much to let in.

    `rate` is requests a minute and `together` requests at once, for each key; `queue` how many wait
    for a slot of a model; `largest` bytes of a body, `patience` seconds for it to come, `drain`
    seconds that running replies are given when the server stops.
    """

    host: str = "127.0.0.1"
    port: int = 23333
    keys: tuple[str, ...] = field(default=(), repr=False)
    rate: int | None = None
    together: int | None = None
    queue: int = 32
    largest: int = 2_000_000
    patience: float = 30.0
    drain: float = 30.0
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if not self.keys and not is_loopback(self.host):
            raise UsageError(
                f"Listening on {self.host} lets other machines in, and there is no key. Give one "
                "with --keys FILE or ELYSIA_API_KEYS, or listen on 127.0.0.1."
            )
        for name, least in (("rate", 1), ("together", 1), ("queue", 0), ("largest", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} is {value}; it must be {least} or more.")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nobody else's.

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
    catalogue = ModelRegistry(
        {
            name: ServedModel(name, engine, manner, AdmissionQueue(engine.slots, settings.queue))
            for name, engine, manner in models
        }
    )
    gate = RateLimiter(settings.keys, rate=settings.rate, together=settings.together)
    desk = GatewayState(catalogue, gate, defaults=settings.sampling)
    spoken = speech_routes.VoiceRegistry(voices or {}, settings.queue)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        spoken.close()
        catalogue.close()

    app = FastAPI(
        title="Elysia", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.include_router(build_router(desk))
    app.include_router(speech_routes.build_speech_router(desk, spoken))
    api_errors.install_error_handlers(app)
    app.state.catalogue = catalogue
    app.state.voices = spoken
    app.add_middleware(
        GatewayMiddleware,
        gate=gate,
        metrics=desk.metrics,
        largest=settings.largest,
        patience=settings.patience,
        local=not settings.keys,
    )
    return app


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which tells the application first that it is about to stop."""

    def handle_exit(self, sig: int, frame: object) -> None:
        """See uvicorn."""
        self.config.app.state.draining = True  # type: ignore[union-attr]
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def bind_socket(settings: GatewaySettings) -> socket.socket:
    """A bound socket; DeviceError, a sentence, when the port is taken or not ours to take."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(256)
    except OSError as error:
        sock.close()
        raise DeviceError(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}. Is another "
            "server running there? Choose another with --port."
        ) from error
    return sock


def serve(app: FastAPI, settings: GatewaySettings, sock: socket.socket) -> None:
    """Serve `app` on `sock` until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # queries and addresses are nobody's business
        timeout_graceful_shutdown=int(settings.drain),
        timeout_keep_alive=30,
        server_header=False,
    )
    DrainingServer(config).run(sockets=[sock])
