"""`elysia serve`: flags for elysia.gateway. Knows nothing of HTTP."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.chat import add_engine_options, add_model_options, settings_of
from elysia.cli.output import build_parser, say, warn

if TYPE_CHECKING:
    from elysia.app import ChatSettings
    from elysia.engines.base import Sampling
    from elysia.voice.voices import VoiceFile


def serve_parser() -> ArgumentParser:
    """The parser of `elysia serve`."""
    parser = build_parser(
        "serve",
        "MODEL [NAME=MODEL ...] [options]",
        "Serve models under OpenAI's endpoints. Keys come from --keys FILE or ELYSIA_API_KEYS; beyond "
        "this machine it listens only with one.",
        serve,
    )
    parser.add_argument(
        "models", nargs="+", metavar="MODEL",
        help="a folder, a .gguf or a URL; NAME=MODEL gives it a name, NAME=MODEL+ADAPTER an adapter",
    )  # fmt: skip
    add_model_options(parser)
    add_engine_options(parser)
    add = parser.add_argument
    add(
        "--voice", action="append", default=[], metavar="NAME",
        help="a voice to serve; may be given again (default: all that speak on this machine)",
    )  # fmt: skip
    add("--host", default="127.0.0.1", help="default: 127.0.0.1")
    add("--port", type=int, default=23333, help="default: 23333")
    add("--parallel", type=int, default=4, metavar="N", help="slots of llama_cpp (default: 4)")
    add("--queue", type=int, default=32, metavar="N", help="requests that may wait (default: 32)")
    add("--keys", metavar="FILE", help="API keys, one a line")
    add("--rate", type=int, metavar="N", help="requests a minute for each key (default: no limit)")
    add("--together", type=int, metavar="N", help="requests at once for each key")
    add("--max-body", type=int, default=2_000_000, metavar="BYTES", help="default: 2000000")
    add("--drain", type=float, default=30.0, metavar="S", help="for running replies (default: 30)")
    add(
        "--max-new-tokens",
        type=int,
        default=2048,
        metavar="N",
        help="when not asked (default: 2048)",
    )
    add("--temperature", type=float, default=0.1, metavar="T", help="when not asked (default: 0.1)")
    add("--top-k", type=int, default=40, metavar="K", help="when not asked (default: 40)")
    add("--top-p", type=float, default=0.75, metavar="P", help="when not asked (default: 0.75)")
    return parser


def serve(args: Namespace) -> int:
    """Load, listen, and serve until stopped."""
    from elysia.app import open_engine
    from elysia.engines.base import Sampling
    from elysia.gateway import server
    from elysia.gateway.keys import load_keys

    sampling = Sampling(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=None,
    )
    settings = server.GatewaySettings(
        host=args.host,
        port=args.port,
        keys=load_keys(Path(args.keys) if args.keys else None),
        rate=args.rate,
        together=args.together,
        queue=args.queue,
        largest=args.max_body,
        drain=args.drain,
        sampling=sampling,
    )
    wanted, voices = named(args, sampling), voices_of(args.voice)
    with server.listen(settings) as sock:  # before loading: a taken port is told at once
        models = [(name, *open_engine(one)) for name, one in wanted.items()]
        app = server.application(models, settings, voices)
        host = f"[{args.host}]" if ":" in args.host else args.host
        say(f"Serving {', '.join(wanted)} on http://{host}:{sock.getsockname()[1]}/v1")
        if voices:
            say(f"Voices: {', '.join(voices)}")
        server.serve(app, settings, sock)
    return 0


def voices_of(asked: list[str]) -> dict[str, VoiceFile]:
    """The voice files of names; without names every one that asks no other server. VoiceError for a
    name that there is not; a damaged file that nobody named is said, and left out.
    """
    from elysia.core.errors import VoiceError
    from elysia.voice import voices

    if asked:
        return {file.name: file for file in map(voices.find, asked)}
    found = {}
    for name in voices.names():
        try:
            file = voices.find(name)
        except VoiceError as error:
            warn(f"{error} It is not served.")
            continue
        if file.engine != "http":
            found[name] = file
    return found


def named(args: Namespace, sampling: Sampling) -> dict[str, ChatSettings]:
    """Name to settings of every model of the command line; UsageError for a name given twice."""
    from elysia.core.errors import UsageError

    found: dict[str, ChatSettings] = {}
    for text in args.models:
        match = re.fullmatch(r"([\w.-]+)=(.+)", text)
        name, model = (match[1], match[2]) if match else ("", text)
        adapter = args.adapter
        if name and "+" in model and not Path(model).exists():
            model, _, adapter = model.rpartition("+")
        name = name or name_of(model)
        if name in found:
            raise UsageError(f"Two models are called '{name}'. Say NAME=MODEL for one of them.")
        args.model_name_or_path = model
        found[name] = replace(settings_of(args, sampling), adapter=adapter)
    return found


def name_of(model: str) -> str:
    """The last part of a path or URL, without .gguf.

    >>> name_of("work_dirs/demo/merged.q4_k_m.gguf"), name_of("work_dirs/demo/merged/")
    ('merged.q4_k_m', 'merged')
    """
    return model.rstrip("/").rpartition("/")[2].removesuffix(".gguf") or model
