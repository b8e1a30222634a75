"""`elysia chat`: a conversation in the terminal, or with a script through a pipe.

On a terminal an empty line sends (XTuner's double Enter), so a message may have many lines; through
a pipe every line that is not empty is one message. Knows nothing of how replies are made.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

from elysia.cli.card import escape_unprintable
from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import EngineError, UsageError, nearest

if TYPE_CHECKING:
    from elysia.app import ModelConfig
    from elysia.chat.session import ChatSession
    from elysia.cli.terminal_speech import TerminalSpeech
    from elysia.core.persona import UserPersona
    from elysia.engines.base import Sampling

DTYPES = {"auto": "auto", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
INPUT_PROMPT = "double enter to end input (EXIT: exit chat, RESET: reset history) >>> "
# XTuner's flags that are not served: the sentence says what there is instead.
UNSERVED = {
    "llava": "talking about images needs a LLaVA model, which is not served here",
    "visual_encoder": "talking about images needs a LLaVA model, which is not served here",
    "visual_select_layer": "talking about images needs a LLaVA model, which is not served here",
    "image": "talking about images needs a LLaVA model, which is not served here",
    "with_plugins": "the MOSS plugins are not served here",
    "lagent": "Lagent is not served here",
    "offload_folder": "weights are not offloaded to disk here; use --bits 4 or 8 to save memory",
}


def chat_parser() -> ArgumentParser:
    """The parser of `elysia chat`."""
    parser = build_parser(
        "chat",
        "MODEL [--adapter ADAPTER] [options]",
        "Talk to a model. Enter twice sends; RESET forgets the conversation, EXIT leaves, Ctrl-C "
        "stops a reply. Template, stop words and system prompt come from the run card beside the "
        "weights.",
        chat,
    )
    parser.add_argument(
        "model_name_or_path",
        metavar="MODEL",
        help="a folder, a name on the hub, a .gguf, or the URL of an OpenAI-compatible server",
    )
    add_model_options(parser)
    add_engine_options(parser)
    parser.add_argument("--persona", metavar="CARD", help="talk to this card's character")
    parser.add_argument("--user", metavar="NAME", help="your name to it, or a JSON file with yours")
    parser.add_argument(
        "--greeting", type=int, default=0, metavar="N", help="its N-th (default: 0)"
    )
    parser.add_argument("--bot-name", default="BOT", help="shown before replies (default: BOT)")
    parser.add_argument("--no-streamer", action="store_true", help="show replies when complete")
    parser.add_argument("--stop-words", nargs="+", default=[], help="more texts that end a reply")
    add = parser.add_argument
    add("--max-new-tokens", type=int, default=2048, metavar="N", help="default: 2048")
    add("--temperature", type=float, default=0.1, metavar="T", help="0 is greedy (default: 0.1)")
    add("--top-k", type=int, default=40, metavar="K", help="0 is no limit (default: 40)")
    add("--top-p", type=float, default=0.75, metavar="P", help="1 is no limit (default: 0.75)")
    add("--repetition-penalty", type=float, default=1.0, metavar="R", help="default: 1.0")
    add("--seed", type=int, default=0, help="equal seeds give equal replies (default: 0)")
    add("--voice", metavar="NAME", help="speak replies while they are written: see 'voice list'")
    add("--voice-out", metavar="DIR", help="a WAV file a reply, instead of playing")
    for name in UNSERVED:
        flag = "--" + name.replace("_", "-")
        add(flag, nargs="*", default=None, help=argparse.SUPPRESS)
    return parser


def add_model_options(parser: ArgumentParser) -> None:
    """The flags that say what to load and how it is spoken to; shared with `probe`."""
    parser.add_argument("--adapter", metavar="DIR", help="an adapter folder to put on the model")
    parser.add_argument(
        "--torch-dtype", choices=DTYPES, default="auto", help="default: what the device does best"
    )
    parser.add_argument("--bits", type=int, choices=[4, 8], help="load quantized: NF4 or int8")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)"
    )
    parser.add_argument(
        "--hub",
        choices=["huggingface", "modelscope"],
        default="huggingface",
        help="where names lead",
    )
    parser.add_argument(
        "--prompt-template", metavar="NAME", help="default: the run card's; needed without one"
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--system", metavar="TEXT", help="default: the run card's")
    group.add_argument("--system-template", metavar="NAME", help="one of XTuner's system prompts")


def add_engine_options(parser: ArgumentParser) -> None:
    """The flags that say what runs the model; shared with `serve`."""
    add = parser.add_argument
    add(
        "--engine", choices=["llama_cpp", "transformers", "openai"],
        help="default: what suits MODEL and the device",
    )  # fmt: skip
    add("--threads", type=int, metavar="N", help="of llama_cpp (default: one fewer than the cores)")
    add(
        "--context", type=int, metavar="N", help="tokens of prompt and reply (default: the model's)"
    )
    add("--gpu-layers", type=int, default=0, metavar="N", help="of llama_cpp (default: 0)")
    add("--remote-model", metavar="NAME", help="which of a URL's models (default: its first)")


def build_model_config(
    args: Namespace, sampling: Sampling, stop: tuple[str, ...] = ()
) -> ModelConfig:
    """The flags of add_model_options as app.ChatSettings."""
    from elysia.app import ModelConfig

    return ModelConfig(
        model=args.model_name_or_path,
        adapter=args.adapter,
        hub=args.hub,
        dtype=DTYPES[args.torch_dtype],
        bits=args.bits,
        device=args.device,
        prompt_template=args.prompt_template,
        system=get_system_text(args),
        stop_words=stop,
        sampling=sampling,
        engine=getattr(args, "engine", None),
        threads=getattr(args, "threads", None),
        context=getattr(args, "context", None),
        slots=getattr(args, "parallel", 1),
        gpu_layers=getattr(args, "gpu_layers", 0),
        remote_model=getattr(args, "remote_model", None),
    )


def get_system_text(args: Namespace) -> str | None:
    """What --system or --system-template say; None when neither was given."""
    if args.system_template is None:
        return str(args.system) if args.system is not None else None
    from elysia.core.templates import SYSTEM_TEMPLATES

    if args.system_template not in SYSTEM_TEMPLATES:
        guess = nearest(args.system_template, SYSTEM_TEMPLATES)
        raise UsageError(
            f"There is no system template '{args.system_template}', only "
            f"{', '.join(SYSTEM_TEMPLATES)}.{guess}"
        )
    text = SYSTEM_TEMPLATES[args.system_template]
    return text.replace("{bot_name}", getattr(args, "bot_name", "BOT")).replace("{round}", "1")


def open_session(args: Namespace) -> ChatSession:
    """Everything loaded, as the flags say."""
    for name, sentence in UNSERVED.items():
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: {sentence}.")
    from elysia.app import model_loading as app
    from elysia.engines.base import Sampling

    sampling = Sampling(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
    )
    settings = build_model_config(args, sampling, tuple(args.stop_words))
    settings = replace(
        settings, persona=args.persona, user=parse_user(args.user), greeting=args.greeting
    )
    return app.load_chat_session(settings)


def parse_user(said: str | None) -> UserPersona:
    """What --user says: a name, or a file that ends in .json."""
    from elysia.core.persona import UserPersona

    if said is None:
        return UserPersona()
    return UserPersona.load(said) if said.endswith(".json") else UserPersona(said)


def chat(args: Namespace) -> int:
    """Talk until EXIT, the end of input, or Ctrl-C twice at the prompt."""
    speech = None
    if args.voice:
        from elysia.cli.terminal_speech import open_speech

        speech = open_speech(args.voice, args.voice_out)
    whole, session = False, None
    try:
        session = open_session(args)
        name = args.bot_name
        if session.character and name == "BOT":
            name = escape_unprintable(session.character.persona.display_name)
        streaming = not args.no_streamer
        code = converse(session, bot_name=name, streaming=streaming, speech=speech)
        whole = True
        return code
    finally:
        if speech is not None:
            speech.close(finish=whole)
        if session is not None:
            session.engine.close()


def converse(
    session: ChatSession,
    *,
    bot_name: str = "BOT",
    streaming: bool = True,
    speech: TerminalSpeech | None = None,
) -> int:
    """The conversation itself, on a terminal or through a pipe. Returns the exit code."""
    on_terminal = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):  # a half-deleted character must be no crash
        sys.stdin.reconfigure(errors="replace")
    if on_terminal:
        with suppress(ImportError):
            import readline  # noqa: F401  (arrow keys and history in input())
        show_greeting(session, bot_name)
    for text in iter_typed_messages() if on_terminal else iter_piped_messages():
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
    """Show the greeting of a conversation that has one; through a pipe only replies are shown."""
    for message in session.history[:1]:
        say(
            paint(f"{bot_name}: ", "cyan")
            + "".join(c for c in message.text if c.isprintable() or c == "\n")
        )


def show_reply(
    session: ChatSession, text: str, streaming: bool, speech: TerminalSpeech | None = None
) -> None:
    """Print one reply as it comes (or whole), and speak it where there is a voice; Ctrl-C stops
    both, a second Ctrl-C leaves.
    """
    kept: list[str] = []
    finish = None
    spoken = speech.begin() if speech else None
    with catch_interrupts() as cancel:
        for delta in session.reply(text, cancel):
            finish = delta.finish
            kept.append(delta.text)
            if spoken:
                spoken.write(delta.text)
            if streaming:
                say(delta.text, end="")
    if spoken and finish == "cancelled":
        spoken.stop()
    elif spoken:
        spoken.end()
    say("" if streaming else "".join(kept))
    if finish == "cancelled":
        warn("(stopped)")
    elif finish == "length":
        warn("(cut short: --max-new-tokens or the context's end)")


@contextmanager
def catch_interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets instead of raising; a second Ctrl-C raises as ever."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread gets signals
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def iter_piped_messages() -> Iterator[str]:
    """Every line that is not empty."""
    for line in sys.stdin:
        if line.strip():
            yield line.rstrip("\r\n")


def iter_typed_messages() -> Iterator[str]:
    """Messages from the terminal, each ended by an empty line; RESET and EXIT need none.

    The first Ctrl-C at the prompt drops what was typed and says how to leave, the second in a row
    leaves.
    """
    interrupted = False
    while True:
        try:
            text = read_typed_message()
        except EOFError:
            say()
            return
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            warn("\n(Ctrl-C again leaves, and so does EXIT.)")
            continue
        interrupted = False
        if text.strip():
            yield text


def read_typed_message() -> str:
    """Lines up to an empty one. Raises EOFError at the end of input (Ctrl-D) when nothing was
    typed.
    """
    lines: list[str] = []
    say()
    while True:
        # input() must print the prompt itself, or line editing would draw over it.
        prompt = "" if lines else INPUT_PROMPT
        try:
            line = input(prompt)
        except EOFError:
            if not lines:
                raise
            return "\n".join(lines)
        if not line:
            return "\n".join(lines)
        lines.append(line)
        if len(lines) == 1 and line.strip() in ("EXIT", "RESET"):
            return line


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
    session = load_chat_session(
        ModelConfig(
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
