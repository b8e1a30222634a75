"""`elysia chat` and `elysia client`: a conversation with a model, or with a server, in the terminal.

On a terminal an empty line sends (XTuner's double Enter), so that a message may have several lines.
Through a pipe every line that is not empty is one message.
"""

from __future__ import annotations

import argparse
import io
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from elysia.cli.options import add_engine_options, add_model_options, build_model_config
from elysia.cli.output import build_parser, paint, say, warn
from elysia.cli.terminal import (
    catch_interrupts,
    enable_line_editing,
    escape_unprintable,
    iter_messages,
    show_finish,
    strip_control_characters,
)
from elysia.core.errors import EngineError, UsageError

if TYPE_CHECKING:
    from elysia.chat.session import ChatSession
    from elysia.cli.terminal_speech import TerminalSpeech
    from elysia.core.persona import UserPersona

# The parser's own defaults are None, since a character's conversation has others.
SAMPLING_DEFAULTS = {
    "max_new_tokens": 2048,
    "temperature": 0.1,
    "top_k": 40,
    "top_p": 0.75,
    "repetition_penalty": 1.0,
    "seed": 0,
}
# XTuner's flags without a counterpart here, and the sentence that says so.
UNSERVED = {
    "llava": "cli.no_llava",
    "visual_encoder": "cli.no_llava",
    "visual_select_layer": "cli.no_llava",
    "image": "cli.no_llava",
    "with_plugins": "cli.no_plugins",
    "lagent": "cli.no_lagent",
    "offload_folder": "cli.no_offload",
}
CHARACTER_ONLY = ("model", "database", "embedder", "new")
# What `--character` takes; any other flag of `chat` does not apply to a character's conversation.
CHARACTER_FLAGS = {
    "run", "character", "model_name_or_path", "adapter", "engine", "remote_model",
    "prompt_template", "thinking", "user", "temperature", "top_p", "max_new_tokens", "seed", *CHARACTER_ONLY,
}  # fmt: skip


def chat_parser() -> ArgumentParser:
    """The parser of `elysia chat`."""
    parser = build_parser(
        "chat",
        "MODEL [--adapter ADAPTER] [options] | --character NAME ... [--model MODEL] [options]",
        "Talk to a model, or with --character to a character who remembers (what 'talk' does). Enter "
        "twice sends; RESET forgets the conversation, EXIT leaves, Ctrl-C stops a reply. Template, stop "
        "words and system prompt come from the run card beside the weights.",
        chat,
    )
    add = parser.add_argument
    partner = parser.add_mutually_exclusive_group(required=True)
    partner.add_argument(
        "model_name_or_path", nargs="?", metavar="MODEL",
        help="a folder, a name on the hub, a .gguf, or the URL of an OpenAI-compatible server",
    )  # fmt: skip
    partner.add_argument(
        "--character", nargs="+", metavar="NAME",
        help="a bundled character or a card's file; several sit at one table",
    )  # fmt: skip
    add_model_options(parser)
    add_engine_options(parser)
    add("--persona", metavar="CARD", help="talk to this card's character")
    add("--user", metavar="NAME", help="your name to it, or a JSON file with yours")
    add("--greeting", type=int, default=0, metavar="N", help="its N-th (default: 0)")
    add("--bot-name", default="BOT", help="shown before replies (default: BOT)")
    add("--no-streamer", action="store_true", help="show replies when complete")
    # The last two names are those of XTuner 0.1.
    add("--stop-words", "--answer-stop-word", "--command-stop-word", action="extend", nargs="+",
        default=[], help="more texts that end a reply")  # fmt: skip
    add("--max-new-tokens", type=int, metavar="N", help="default: 2048")
    add("--temperature", type=float, metavar="T", help="0 is greedy (default: 0.1)")
    add("--top-k", type=int, metavar="K", help="0 is no limit (default: 40)")
    add("--top-p", type=float, metavar="P", help="1 is no limit (default: 0.75)")
    add("--repetition-penalty", type=float, metavar="R", help="default: 1.0")
    add("--seed", type=int, help="equal seeds give equal replies (default: 0)")
    add("--voice", metavar="NAME", help="speak replies while they are written: see 'voice list'")
    add("--voice-out", metavar="DIR", help="a WAV file a reply, instead of playing")
    for name in UNSERVED:
        add("--" + name.replace("_", "-"), nargs="*", default=None, help=argparse.SUPPRESS)
    group = parser.add_argument_group("with --character")
    add = group.add_argument
    add("--model", metavar="MODEL", help="default: ELYSIA_MODEL, else what was merged last")
    add("--new", action="store_true", help="begin a new conversation")
    add("--database", metavar="URL", help="default: work_dirs/chat/elysia.db")
    add("--embedder", metavar="MODEL", help="an embedding model, for recall by meaning")
    return parser


def chat(args: Namespace) -> int:
    """Talk until EXIT, the end of input, or Ctrl-C twice at the prompt."""
    if args.character:
        return chat_with_character(args)
    for name in CHARACTER_ONLY:
        if getattr(args, name):
            raise UsageError("cli.flag_needs_character", flag=f"--{name}")
    speech = None
    if args.voice:
        from elysia.cli.terminal_speech import open_speech

        speech = open_speech(args.voice, args.voice_out)
    finished, session = False, None
    try:
        session = open_session(args)
        name = args.bot_name
        if session.character and name == "BOT":
            name = escape_unprintable(session.character.persona.display_name)
        streaming = not args.no_streamer
        code = converse(session, bot_name=name, streaming=streaming, speech=speech)
        finished = True
        return code
    finally:
        if speech is not None:
            speech.close(finish=finished)
        if session is not None:
            session.engine.close()


def chat_with_character(args: Namespace) -> int:
    """`elysia talk` under another name. UsageError for a flag that it does not have."""
    from elysia.cli.character_chat import talk

    defaults = chat_parser()
    for name, value in vars(args).items():
        if name not in CHARACTER_FLAGS and value != defaults.get_default(name):
            raise UsageError("cli.flag_not_with_character", flag="--" + name.replace("_", "-"))
    shared = {name: getattr(args, name) for name in CHARACTER_FLAGS}
    return talk(Namespace(**shared, characters=args.character))


def open_session(args: Namespace) -> ChatSession:
    """The model loaded and a conversation begun, as the flags say."""
    for name, sentence in UNSERVED.items():
        if getattr(args, name) is not None:
            raise UsageError(sentence, flag="--" + name.replace("_", "-"))
    from elysia.app import model_loading
    from elysia.engines.base import Sampling

    values = {name: getattr(args, name) for name in SAMPLING_DEFAULTS}
    chosen = {name: value for name, value in values.items() if value is not None}
    sampling = Sampling(**SAMPLING_DEFAULTS | chosen)  # type: ignore[arg-type]
    config = build_model_config(args, sampling, tuple(args.stop_words))
    user = parse_user(args.user)
    return model_loading.load_chat_session(
        replace(config, persona=args.persona, user=user, greeting=args.greeting)
    )


def parse_user(text: str | None) -> UserPersona:
    """The value of --user: a name, or a file that ends in .json."""
    from elysia.core.persona import UserPersona

    if text is None:
        return UserPersona()
    return UserPersona.load(text) if text.endswith(".json") else UserPersona(text)


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
    from elysia.app import ModelConfig, load_chat_session
    from elysia.engines.base import Sampling

    sampling = Sampling(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=None,
    )
    config = ModelConfig(
        model=args.url,
        engine="openai",
        remote_model=args.model,
        system=args.system,
        sampling=sampling,
    )
    session = load_chat_session(config)
    try:
        return converse(session, bot_name=args.model or "BOT", streaming=True)
    finally:
        session.engine.close()


def converse(
    session: ChatSession,
    *,
    bot_name: str = "BOT",
    streaming: bool = True,
    speech: TerminalSpeech | None = None,
) -> int:
    """The conversation itself, on a terminal or through a pipe. Returns the exit code.

    Through a pipe an engine's error ends it; on a terminal the error is shown and the user may go on.
    """
    on_terminal = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):  # a half-deleted character must not end the program
        sys.stdin.reconfigure(errors="replace")
    if on_terminal:
        enable_line_editing()
        show_greeting(session, bot_name)
    for text in iter_messages():
        if text.strip() == "EXIT":
            break
        if text.strip() == "RESET":
            session.reset()
            warn("(The conversation is forgotten.)")
            if on_terminal:
                show_greeting(session, bot_name)
            continue
        try:
            if on_terminal:
                say(paint(f"{bot_name}: ", "cyan"), end="")
            show_reply(session, text, streaming, speech)
        except EngineError as error:
            if not on_terminal:
                raise
            warn(f"error: {error}")
    return 0


def show_greeting(session: ChatSession, bot_name: str) -> None:
    """Show the greeting of a new conversation, if it has one."""
    for message in session.history[:1]:
        say(paint(f"{bot_name}: ", "cyan") + strip_control_characters(message.text))


def show_reply(
    session: ChatSession, text: str, streaming: bool, speech: TerminalSpeech | None = None
) -> None:
    """Print one reply as it comes, or complete, and speak it where there is a voice.

    Ctrl-C stops both, a second Ctrl-C leaves.
    """
    parts: list[str] = []
    finish = None
    spoken = speech.begin() if speech else None
    with catch_interrupts() as cancel:
        for delta in session.reply(text, cancel):
            finish = delta.finish
            parts.append(delta.text)
            if spoken:
                spoken.write(delta.text)
            if streaming:
                say(delta.text, end="")
    if spoken and finish == "cancelled":
        spoken.stop()
    elif spoken:
        spoken.end()
    say("" if streaming else "".join(parts))
    show_finish(finish)
