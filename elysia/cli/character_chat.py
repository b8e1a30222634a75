"""`elysia chat --character` and `elysia talk`: a character in the terminal, with memory and knowledge.

The conversation is stored; the same command continues where it stopped.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.cli.options import ENGINES, add_thinking
from elysia.cli.output import build_parser, paint, say, warn
from elysia.cli.terminal import (
    catch_interrupts,
    enable_line_editing,
    escape_unprintable,
    iter_messages,
    show_finish,
    strip_control_characters,
)
from elysia.core.errors import ElysiaError, EngineError, UsageError, nearest

if TYPE_CHECKING:
    from elysia.chat.message_tree import ChatMessage
    from elysia.chat.service import ChatService

COMMANDS = (
    "EXIT leaves, RESET starts over, UNDO takes back, AGAIN answers again, WHY shows the prompt"
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
    add(
        "--new",
        action="store_true",
        help="begin a new conversation instead of continuing the last one",
    )
    add("--user", metavar="NAME", help="your name to the character")
    add("--temperature", type=float, metavar="T", help="default: 0.7")
    add("--top-p", type=float, metavar="P", help="default: 0.8")
    add("--max-new-tokens", type=int, metavar="N", help="default: 512")
    add("--seed", type=int, help="equal seeds give equal replies (default: new ones each time)")
    return parser


def add_service_options(parser: ArgumentParser) -> None:
    """The flags about the model, the database and the embedder of a chat service."""
    add = parser.add_argument
    add("--model", metavar="MODEL", help="default: ELYSIA_MODEL, else what was merged last")
    add("--adapter", metavar="DIR", help="an adapter folder to put on the model")
    add("--engine", choices=ENGINES, help="default: what suits MODEL")
    add("--remote-model", metavar="NAME", help="which of a URL's models (default: its first)")
    add("--prompt-template", metavar="NAME", help="default: the run card's, else its own")
    add_thinking(parser)
    add(
        "--database",
        metavar="URL",
        help="a SQLite file or a URL (default: work_dirs/chat/elysia.db)",
    )
    add("--embedder", metavar="MODEL", help="an embedding model, for recall by meaning")


def build_service_config(args: Namespace) -> Any:
    """The flags of `add_service_options`, those that were not given from the environment."""
    from elysia.app.chat_service import ChatServiceConfig

    names = (
        "model", "adapter", "engine", "remote_model", "prompt_template", "thinking", "database",
        "embedder",
    )  # fmt: skip
    return ChatServiceConfig.from_environment(**{name: getattr(args, name) for name in names})


def talk(args: Namespace) -> int:
    """Open the chat service, converse, and close it."""
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
    """One terminal in one conversation, which is continued or begun."""

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
        self.id = self._find_last() or self._begin()

    def _find_last(self) -> str | None:
        """The id of the last conversation with exactly these characters; None with --new."""
        if self.args.new:
            return None
        for item in self.service.store.all(self.user):
            if list(item.guests) == self.guests:
                if self.settings:
                    self.service.update_settings(self.user, item.id, **self.settings)
                return item.id
        return None

    def _begin(self) -> str:
        return self.service.create(self.user, self.guests, self.settings).id

    def converse(self) -> int:
        """Converse until EXIT or the end of input; returns the exit code.

        Through a pipe an error ends it; on a terminal the error is shown and the user may go on.
        """
        on_terminal = sys.stdin.isatty()
        if on_terminal:
            enable_line_editing()
            self.show_last()
        for text in iter_messages():
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
        """Send one message, or do what one of COMMANDS says."""
        word = text.strip()
        if word == "RESET":
            self.id = self._begin()
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
        """The newest reply. Raises UsageError before the first one."""
        for line in reversed(self.service.get_messages(self.user, self.id)):
            if line.role == "assistant" and line.parent is not None:
                return line
        raise UsageError("cli.no_reply_yet")

    def answered(self, reply: str) -> None:
        """Show the replies of a turn as they come; Ctrl-C stops them."""
        shown: set[str] = set()
        with catch_interrupts() as cancel:
            while True:
                self.show(reply, cancel)
                shown.add(reply)
                following = None
                # Between the replies of two characters there is a moment without any.
                while following is None and self.service.is_busy(self.user, self.id):
                    following = self._after(shown)
                    time.sleep(0.01)
                if (following := following or self._after(shown)) is None:
                    return
                reply = following

    def _after(self, shown: set[str]) -> str | None:
        """The id of the reply that follows those in `shown`, if it has begun."""
        lines = self.service.get_messages(self.user, self.id)
        return next((x.id for x in lines if x.id not in shown and x.parent in shown), None)

    def show(self, reply: str, cancel: Any) -> None:
        """Show one reply as it comes."""
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
        show_finish("cancelled" if line.state == "stopped" else line.details.get("finish"))

    def line(self, id: str) -> ChatMessage:
        """A message in its present state."""
        return next(item for item in self.service.get_messages(self.user, self.id) if item.id == id)

    def name(self, line: ChatMessage) -> str:
        """The name of the character who says it."""
        return escape_unprintable(self.service.characters.get(self.user, str(line.speaker)).name)

    def show_last(self) -> None:
        """Show the last message, if it is a character's."""
        for line in self.service.get_messages(self.user, self.id)[-1:]:
            if line.role == "assistant":
                say(paint(f"{self.name(line)}: ", "cyan") + strip_control_characters(line.text))


def find_character_key(service: ChatService, user: str, name: str) -> str:
    """The key of a bundled character, of one of the user's own, or of the card in the file `name`.

    A card file is stored once. Raises UsageError, with the nearest name, when there is none.
    """
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
    bundled = [member.key for member in members if member.owner is None]
    raise UsageError("cli.no_such_character", name=name, hint=nearest(name, known), known=bundled)


def format_breakdown(receipt: dict[str, Any]) -> Iterator[str]:
    """The parts of a prompt, a line each."""
    if not receipt:
        yield "(nothing was recorded)"
        return
    tokens = receipt["tokens"]
    yield f"{tokens['prompt']} tokens of {tokens['context']}, {tokens['reply']} reserved for the reply"
    if receipt["left_out"]:
        yield f"left out for room: the oldest {receipt['left_out']} messages"
    for kind in ("lore", "memories", "documents"):
        for part in receipt[kind]:
            name, text = (
                part.get("name") or part.get("kind"),
                escape_unprintable(part["text"])[:120],
            )
            yield f"{kind}: {name} ({part['why']}, {part['tokens']} tokens): {text}"
        if dropped := receipt[f"{kind}_dropped"]:
            yield f"{kind} left out for room: {len(dropped)}"
    if receipt["summary"]:
        yield f"summary: {escape_unprintable(receipt['summary'])[:200]}"
