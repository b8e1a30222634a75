"""`elysia lmdeploy serve | proxy`: LMDeploy from its own environment, watched. Knows nothing of torch.

LMDeploy wants other versions than training does (requirements/lmdeploy.lock), so it lives in a
virtual environment of its own: `make lmdeploy`.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from elysia.cli.output import build_parser, say

PYTHON = ".venv-lmdeploy/bin/python"


def serve_parser() -> ArgumentParser:
    """The parser of `elysia lmdeploy serve`."""
    parser = build_parser(
        "lmdeploy serve",
        "MODEL [--tp N] [options]",
        "Start LMDeploy's api_server for a model folder on the GPUs, wait until it answers, and start it "
        "again when it dies. It listens on this machine; put 'elysia serve URL' in front of it.",
        serve,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, merged or AWQ")
    add = parser.add_argument
    add(
        "--python",
        default=PYTHON,
        metavar="FILE",
        help=f"default: {PYTHON}, made by 'make lmdeploy'",
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


def serve(args: Namespace) -> int:
    """Start, wait, watch; ends with Ctrl-C or SIGTERM."""
    from elysia.engines.lmdeploy import ApiServer, server_command

    command = server_command(
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
    with ApiServer(command, args.port, patience=args.patience) as server:
        say(f"LMDeploy answers on http://127.0.0.1:{args.port}/v1")
        server.watch()
    return 0


def proxy_parser() -> ArgumentParser:
    """The parser of `elysia lmdeploy proxy`."""
    parser = build_parser(
        "lmdeploy proxy",
        "[options]",
        "Start LMDeploy's proxy: one door to several api_servers, which are told of it with LMDeploy's "
        "own --proxy-url or by POST /nodes/add.",
        proxy,
    )
    add = parser.add_argument
    add("--python", default=PYTHON, metavar="FILE", help=f"default: {PYTHON}")
    add("--port", type=int, default=23335, help="default: 23335")
    add(
        "--routing-strategy", default="min_expected_latency",
        choices=["random", "min_expected_latency", "min_observed_latency"],
        help="default: min_expected_latency",
    )  # fmt: skip
    add("--patience", type=float, default=60.0, metavar="S", help="until it answers (default: 60)")
    return parser


def proxy(args: Namespace) -> int:
    """Start, wait, watch."""
    from elysia.engines.lmdeploy import ApiServer, proxy_command

    command = proxy_command(Path(args.python), port=args.port, strategy=args.routing_strategy)
    path = "/nodes/status"
    with ApiServer(command, args.port, patience=args.patience, path=path) as server:
        say(f"LMDeploy's proxy answers on http://127.0.0.1:{args.port}/v1")
        server.watch()
    return 0
