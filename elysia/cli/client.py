"""`elysia client`: the terminal chat against a server, ours or any OpenAI-compatible one.

The persona is the server's: nothing is said of it here unless --system is given.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from elysia.cli.chat import converse
from elysia.cli.output import build_parser


def client_parser() -> ArgumentParser:
    """The parser of `elysia client`."""
    parser = build_parser(
        "client",
        "[URL] [--model NAME] [options]",
        "Talk to a server in the terminal. Enter twice sends; RESET forgets, EXIT leaves, Ctrl-C stops "
        "a reply. A key is read from ELYSIA_REMOTE_KEY.",
        client,
    )
    add = parser.add_argument
    add(
        "url", nargs="?", default="http://127.0.0.1:23333", metavar="URL",
        help="default: http://127.0.0.1:23333",
    )  # fmt: skip
    add("--model", metavar="NAME", help="default: the first that the server lists")
    add("--system", metavar="TEXT", help="default: the server's own persona")
    add("--max-new-tokens", type=int, default=1024, metavar="N", help="default: 1024")
    add("--temperature", type=float, default=0.1, metavar="T", help="0 is greedy (default: 0.1)")
    add("--top-p", type=float, default=0.75, metavar="P", help="default: 0.75")
    return parser


def client(args: Namespace) -> int:
    """Talk until EXIT, the end of input, or Ctrl-C twice."""
    from elysia.app import ChatSettings, open_session
    from elysia.engines.base import Sampling

    sampling = Sampling(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=None,
    )
    session = open_session(
        ChatSettings(
            model=args.url,
            engine="openai",
            remote_model=args.model,
            system=args.system,
            sampling=sampling,
        )
    )
    try:
        return converse(session, bot_name=args.model or "BOT", streaming=True)
    finally:
        session.engine.close()
