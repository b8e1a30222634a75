"""`elysia serve`, models and voices under OpenAI's endpoints, and `elysia lmdeploy serve | proxy`.

LMDeploy needs other versions than training does (requirements/lmdeploy.lock), so it runs in a virtual
environment of its own: `make lmdeploy`.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.options import add_engine_options, add_model_options, build_model_config
from elysia.cli.output import build_parser, say, warn
from elysia.core.errors import UsageError, VoiceError

if TYPE_CHECKING:
    from elysia.app import ModelConfig
    from elysia.engines.base import Sampling
    from elysia.voice.registry import VoiceFile


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
    add("--keys", metavar="FILE", help="API keys, one per line")
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
    """Load the models, and serve until stopped."""
    from elysia.app import load_engine
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
        requests_per_minute=args.rate,
        max_concurrent=args.together,
        max_waiting=args.queue,
        max_body_bytes=args.max_body,
        drain_seconds=args.drain,
        sampling=sampling,
    )
    configs, voices = build_model_configs(args, sampling), load_voice_files(args.voice)
    with server.bind_socket(
        settings
    ) as sock:  # before loading, so that a port in use is reported at once
        models = [(name, *load_engine(config)) for name, config in configs.items()]
        app = server.build_app(models, settings, voices)
        host = f"[{args.host}]" if ":" in args.host else args.host
        say(f"Serving {', '.join(configs)} on http://{host}:{sock.getsockname()[1]}/v1")
        if voices:
            say(f"Voices: {', '.join(voices)}")
        server.serve(app, settings, sock)
    return 0


def load_voice_files(names: list[str]) -> dict[str, VoiceFile]:
    """{name: voice file} of `names`; without names, of every voice that needs no other server.

    Raises VoiceError for a name without a file. A damaged file that was not named is skipped with a
    warning.
    """
    from elysia.voice import registry

    if names:
        return {file.name: file for file in map(registry.find_voice, names)}
    files = {}
    for name in registry.list_voices():
        try:
            file = registry.find_voice(name)
        except VoiceError as error:
            warn(f"{error} It is not served.")
            continue
        if file.engine != "http":
            files[name] = file
    return files


def build_model_configs(args: Namespace, sampling: Sampling) -> dict[str, ModelConfig]:
    """{name: config} of every MODEL argument. Raises UsageError for a name given twice."""
    configs: dict[str, ModelConfig] = {}
    for text in args.models:
        match = re.fullmatch(r"([\w.-]+)=(.+)", text)
        name, model = (match[1], match[2]) if match else ("", text)
        adapter = args.adapter
        if name and "+" in model and not Path(model).exists():
            model, _, adapter = model.rpartition("+")
        name = name or get_model_name(model)
        if name in configs:
            raise UsageError("cli.two_models_of_one_name", name=name)
        args.model_name_or_path = model
        configs[name] = replace(build_model_config(args, sampling), adapter=adapter)
    return configs


def get_model_name(model: str) -> str:
    """The last part of a path or URL, without `.gguf`.

    >>> get_model_name("work_dirs/demo/merged.q4_k_m.gguf"), get_model_name("work_dirs/demo/merged/")
    ('merged.q4_k_m', 'merged')
    """
    return model.rstrip("/").rpartition("/")[2].removesuffix(".gguf") or model


LMDEPLOY_PYTHON = ".venv-lmdeploy/bin/python"


def lmdeploy_serve_parser() -> ArgumentParser:
    """The parser of `elysia lmdeploy serve`."""
    parser = build_parser(
        "lmdeploy serve",
        "MODEL [--tp N] [options]",
        "Start LMDeploy's api_server for a model folder on the GPUs, wait until it answers, and start it "
        "again when it dies. It listens on this machine; put 'elysia serve URL' in front of it.",
        lmdeploy_serve,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, merged or AWQ")
    add = parser.add_argument
    add(
        "--python",
        default=LMDEPLOY_PYTHON,
        metavar="FILE",
        help=f"default: {LMDEPLOY_PYTHON}, made by 'make lmdeploy'",
    )
    add("--port", type=int, default=23334, help="default: 23334")
    add("--model-name", metavar="NAME", help="default: the folder's name")
    add("--tp", type=int, default=1, metavar="N", help="GPUs to share one model (default: 1)")
    add("--backend", choices=["turbomind", "pytorch"], help="default: LMDeploy's choice")
    add("--model-format", choices=["hf", "awq", "gptq"], help="default: what the folder says")
    add(
        "--quant-policy", choices=["0", "4", "8", "int4", "int8", "fp8"], default="0",
        help="of keys and values: 0 is none, 4 is int4, 8 is int8 (default: 0)",
    )  # fmt: skip
    add(
        "--cache-max-entry-count", type=float, metavar="SHARE",
        help="of the free GPU memory that keys and values may take",
    )  # fmt: skip
    add("--session-len", type=int, metavar="N", help="tokens of context")
    add(
        "--patience", type=float, default=600.0, metavar="S", help="until it answers (default: 600)"
    )
    return parser


def lmdeploy_serve(args: Namespace) -> int:
    """Start the server, wait until it answers, and watch it until Ctrl-C or SIGTERM."""
    from elysia.engines.lmdeploy import ServerProcess, build_server_command

    command = build_server_command(
        Path(args.python),
        Path(args.model),
        port=args.port,
        name=args.model_name,
        tp=args.tp,
        backend=args.backend,
        model_format=args.model_format,
        quant_policy=args.quant_policy,
        cache=args.cache_max_entry_count,
        session_len=args.session_len,
    )
    with ServerProcess(command, args.port, timeout=args.patience) as server:
        say(f"LMDeploy answers on http://127.0.0.1:{args.port}/v1")
        server.watch()
    return 0


def lmdeploy_proxy_parser() -> ArgumentParser:
    """The parser of `elysia lmdeploy proxy`."""
    parser = build_parser(
        "lmdeploy proxy",
        "[options]",
        "Start LMDeploy's proxy: one address for several api_servers, which register with LMDeploy's "
        "own --proxy-url or by POST /nodes/add.",
        lmdeploy_proxy,
    )
    add = parser.add_argument
    add("--python", default=LMDEPLOY_PYTHON, metavar="FILE", help=f"default: {LMDEPLOY_PYTHON}")
    add("--port", type=int, default=23335, help="default: 23335")
    add(
        "--routing-strategy", default="min_expected_latency",
        choices=["random", "min_expected_latency", "min_observed_latency"],
        help="default: min_expected_latency",
    )  # fmt: skip
    add("--patience", type=float, default=60.0, metavar="S", help="until it answers (default: 60)")
    return parser


def lmdeploy_proxy(args: Namespace) -> int:
    """Start the proxy, wait until it answers, and watch it until Ctrl-C or SIGTERM."""
    from elysia.engines.lmdeploy import ServerProcess, build_proxy_command

    command = build_proxy_command(Path(args.python), port=args.port, strategy=args.routing_strategy)
    path = "/nodes/status"
    with ServerProcess(command, args.port, timeout=args.patience, path=path) as server:
        say(f"LMDeploy's proxy answers on http://127.0.0.1:{args.port}/v1")
        server.watch()
    return 0
