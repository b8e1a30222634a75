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
from elysia.app import Manner
from elysia.core.errors import DeviceError, UsageError
from elysia.engines.base import Engine, Sampling
from elysia.gateway import errors, speech
from elysia.gateway.endpoints import Desk, router
from elysia.gateway.guard import Guard
from elysia.gateway.keys import Gate
from elysia.gateway.served import Catalogue, Served
from elysia.gateway.slots import Slots
from elysia.voice.voices import VoiceFile

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


def application(
    models: Sequence[tuple[str, Engine, Manner]],
    settings: GatewaySettings,
    voices: Mapping[str, VoiceFile] | None = None,
) -> FastAPI:
    """The ASGI application over loaded models and voices, by name; it closes them when it ends."""
    catalogue = Catalogue(
        {
            name: Served(name, engine, manner, Slots(engine.slots, settings.queue))
            for name, engine, manner in models
        }
    )
    gate = Gate(settings.keys, rate=settings.rate, together=settings.together)
    desk = Desk(catalogue, gate, defaults=settings.sampling)
    spoken = speech.Voices(voices or {}, settings.queue)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        spoken.close()
        catalogue.close()

    app = FastAPI(
        title="Elysia", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.include_router(router(desk))
    app.include_router(speech.router(desk, spoken))
    errors.install(app)
    app.state.catalogue = catalogue
    app.state.voices = spoken
    app.add_middleware(
        Guard,
        gate=gate,
        metrics=desk.metrics,
        largest=settings.largest,
        patience=settings.patience,
        local=not settings.keys,
    )
    return app


class Drained(uvicorn.Server):
    """uvicorn's server, which tells the application first that it is about to stop."""

    def handle_exit(self, sig: int, frame: object) -> None:
        """See uvicorn."""
        self.config.app.state.draining = True  # type: ignore[union-attr]
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def listen(settings: GatewaySettings) -> socket.socket:
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
    Drained(config).run(sockets=[sock])
