"""`elysia talk`: a character in the terminal, with memory, knowledge and everything a page has.

What was said is kept; the same command goes on where the talk stopped. Knows nothing of how replies
are made.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from elysia.cli.card import escape_unprintable
from elysia.cli.chat import catch_interrupts, iter_piped_messages, iter_typed_messages
from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import ElysiaError, EngineError, UsageError, nearest

if TYPE_CHECKING:
    from elysia.chat.message_tree import ChatMessage
    from elysia.chat.service import ChatService

COMMANDS = (
    "EXIT leaves, RESET begins anew, UNDO takes back, AGAIN answers anew, WHY shows what she saw"
)


def talk_parser() -> ArgumentParser:
    """The parser of `elysia talk`."""
    parser = build_parser(
        "talk",
        "CHARACTER [CHARACTER ...] [--model MODEL] [options]",
        "Talk to a character, or to several at one table. CHARACTER is a bundled one's name or a card's "
        f"file. {COMMANDS}; Ctrl-C stops a reply.",
        talk,
    )
    add = parser.add_argument
    add("characters", nargs="+", metavar="CHARACTER")
    add_service_options(parser)
    add("--new", action="store_true", help="begin a new talk instead of going on with the last")
    add("--user", metavar="NAME", help="your name to her")
    add("--temperature", type=float, metavar="T", help="default: 0.7")
    add("--top-p", type=float, metavar="P", help="default: 0.8")
    add("--max-new-tokens", type=int, metavar="N", help="default: 512")
    add("--seed", type=int, help="equal seeds give equal replies (default: new ones each time)")
    return parser


def add_service_options(parser: ArgumentParser) -> None:
    """Where a chat service finds its things; shared with the pages and `kb`."""
    add = parser.add_argument
    add("--model", metavar="MODEL", help="default: ELYSIA_MODEL, else what was merged last")
    add("--adapter", metavar="DIR", help="an adapter folder to put on the model")
    add(
        "--engine",
        choices=["llama_cpp", "transformers", "openai"],
        help="default: what suits MODEL",
    )
    add("--remote-model", metavar="NAME", help="which of a URL's models (default: its first)")
    add("--prompt-template", metavar="NAME", help="default: the run card's")
    add(
        "--database",
        metavar="URL",
        help="a SQLite file or a URL (default: work_dirs/chat/elysia.db)",
    )
    add("--embedder", metavar="MODEL", help="an embedding model, for recall by meaning")


def build_service_config(args: Namespace) -> Any:
    """The options of add_service_options as app's ChatServiceConfig."""
    from elysia.app.chat_service import ChatServiceConfig

    names = (
        "model", "adapter", "engine", "remote_model", "prompt_template", "database", "embedder",
    )  # fmt: skip
    return ChatServiceConfig.from_environment(**{name: getattr(args, name) for name in names})


def talk(args: Namespace) -> int:
    """Open everything, talk, close."""
    from elysia.app.chat_service import build_chat_service
    from elysia.chat.accounts import AccountStore

    service = build_chat_service(build_service_config(args))
    try:
        user = AccountStore(service.database).local().id
        return TerminalChat(service, user, args).converse()
    finally:
        service.close()
        service.database.close()


class TerminalChat:
    """One terminal at one conversation."""

    def __init__(self, service: ChatService, user: str, args: Namespace) -> None:
        self.service, self.user, self.args = service, user, args
        self.guests = [find_character_key(service, user, name) for name in args.characters]
        self.settings: dict[str, Any] = {
            name: getattr(args, name)
            for name in ("temperature", "top_p", "max_new_tokens", "seed")
            if getattr(args, name) is not None
        }
        if args.user:
            self.settings["user"] = {"name": args.user}
        self.id = self._found() or self._begun()

    def _found(self) -> str | None:
        """The last talk with exactly these characters."""
        if self.args.new:
            return None
        for one in self.service.store.all(self.user):
            if list(one.guests) == self.guests:
                if self.settings:
                    self.service.update_settings(self.user, one.id, **self.settings)
                return one.id
        return None

    def _begun(self) -> str:
        return self.service.create(self.user, self.guests, self.settings).id

    def converse(self) -> int:
        """Until EXIT or the end of input. Through a pipe a fault ends it; on a terminal it is told."""
        on_terminal = sys.stdin.isatty()
        if on_terminal:
            with suppress(ImportError):
                import readline  # noqa: F401
            self.show_last()
        for text in iter_typed_messages() if on_terminal else iter_piped_messages():
            if text.strip() == "EXIT":
                break
            try:
                self.obey(text)
            except ElysiaError as error:
                if not on_terminal:
                    raise
                warn(f"error: {error}")
        return 0

    def obey(self, text: str) -> None:
        """One message, or one of the words in capitals."""
        word = text.strip()
        if word == "RESET":
            self.id = self._begun()
            self.show_last()
        elif word == "UNDO":
            warn(f"(taken back: {escape_unprintable(self.service.undo(self.user, self.id))})")
        elif word == "AGAIN":
            self.answered(self.service.regenerate(self.user, self.id, self.newest_reply().id))
        elif word == "WHY":
            for line in format_breakdown(
                self.service.get_prompt_breakdown(self.user, self.id, self.newest_reply().id)
            ):
                say(paint(line, "dim"))
        else:
            self.answered(self.service.send(self.user, self.id, text))

    def newest_reply(self) -> ChatMessage:
        """UsageError before the first."""
        for line in reversed(self.service.get_messages(self.user, self.id)):
            if line.role == "assistant" and line.parent is not None:
                return line
        raise UsageError("She has not answered anything yet.")

    def answered(self, reply: str) -> None:
        """Show a round's replies as they come; Ctrl-C stops them."""
        shown: set[str] = set()
        with catch_interrupts() as cancel:
            while True:
                self.show(reply, cancel)
                shown.add(reply)
                following = None
                # Between two guests nobody writes for a moment.
                while following is None and self.service.is_busy(self.user, self.id):
                    following = self._after(shown)
                    time.sleep(0.01)
                if (following := following or self._after(shown)) is None:
                    return
                reply = following

    def _after(self, shown: set[str]) -> str | None:
        """The reply below those that were shown."""
        lines = self.service.get_messages(self.user, self.id)
        return next((x.id for x in lines if x.id not in shown and x.parent in shown), None)

    def show(self, reply: str, cancel: Any) -> None:
        """One reply."""
        line = self.line(reply)
        say(paint(f"{self.name(line)}: ", "cyan"), end="")
        for piece in self.service.follow(self.user, self.id, reply):
            if cancel.is_set():
                self.service.stop(self.user, self.id)
            say(strip_control_characters(piece), end="")
        say()
        line = self.line(reply)
        if line.fault:
            raise EngineError(line.fault)
        elif line.state == "stopped":
            warn("(stopped)")
        elif line.details.get("finish") == "length":
            warn("(cut short: --max-new-tokens or the context's end)")

    def line(self, id: str) -> ChatMessage:
        """A line as it is now."""
        return next(one for one in self.service.get_messages(self.user, self.id) if one.id == id)

    def name(self, line: ChatMessage) -> str:
        """Who says it."""
        return escape_unprintable(self.service.characters.get(self.user, str(line.speaker)).name)

    def show_last(self) -> None:
        """Where the talk stands: its last message."""
        for line in self.service.get_messages(self.user, self.id)[-1:]:
            if line.role == "assistant":
                say(paint(f"{self.name(line)}: ", "cyan") + strip_control_characters(line.text))


def strip_control_characters(text: str) -> str:
    """`text` without what would move a terminal's cursor."""
    return "".join(sign for sign in text if sign.isprintable() or sign == "\n")


def find_character_key(service: ChatService, user: str, name: str) -> str:
    """A bundled character by key or name, one of the user's own by name, else a card's file."""
    from pathlib import Path

    members = service.characters.all(user)
    for member in members:
        if name in (member.key, member.name, member.persona.name):
            return member.key
    path = Path(name)
    if path.is_file():
        content = path.read_bytes()
        for member in members:
            if member.owner and member.card.original == content:
                return member.key
        return service.characters.add(user, path.name, content).key
    known = [word for member in members for word in (member.key, member.name)]
    raise UsageError(
        f"There is no character '{name}', and no card at that path.{nearest(name, known)} "
        f"There are {', '.join(member.key for member in members if member.owner is None)}."
    )


def format_breakdown(receipt: dict[str, Any]) -> Iterator[str]:
    """What entered a prompt, a line each."""
    if not receipt:
        yield "(no receipt)"
        return
    tokens = receipt["tokens"]
    yield f"{tokens['prompt']} tokens of {tokens['context']}, {tokens['reply']} kept for the reply"
    if receipt["left_out"]:
        yield f"left out for room: the oldest {receipt['left_out']} messages"
    for kind in ("lore", "memories", "documents"):
        for one in receipt[kind]:
            name = one.get("name") or one.get("kind")
            yield f"{kind}: {name} ({one['why']}, {one['tokens']} tokens): {escape_unprintable(one['text'])[:120]}"
        if dropped := receipt[f"{kind}_dropped"]:
            yield f"{kind} left out for room: {len(dropped)}"
    if receipt["summary"]:
        yield f"summary: {escape_unprintable(receipt['summary'])[:200]}"
