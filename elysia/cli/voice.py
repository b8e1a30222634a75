"""`elysia voice`: say a text, list voices, show how a text is read, bring a checkpoint.

Knows nothing of how sound is made.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import UsageError

if TYPE_CHECKING:
    from elysia.voice.base import Pcm, Voice
    from elysia.voice.vits_import import Imported
    from elysia.voice.voices import VoiceFile


def explain_parser() -> ArgumentParser:
    """The parser of `elysia voice explain`."""
    parser = build_parser(
        "voice explain",
        "TEXT [--cleaner NAME]",
        "Show each step from a text to what is said: stripped, written out, languages, pinyin, "
        "symbols.",
        explain,
    )
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument(
        "--cleaner",
        default="cjke_cleaners2",
        help="chinese_cleaners, cjke_cleaners2 or pinyin (default: cjke_cleaners2)",
    )
    parser.add_argument(
        "--directions", action="store_true", help="read *actions* and （动作）, too"
    )
    return parser


def explain(args: Namespace) -> int:
    """Print the steps, one a line."""
    from elysia.voice.text.cleaners import CLEANERS
    from elysia.voice.text.explain import explain as steps_of

    if args.cleaner not in CLEANERS:
        raise UsageError(f"There is no cleaner '{args.cleaner}', only {', '.join(CLEANERS)}.")
    show_steps(steps_of(args.text, args.cleaner, directions=args.directions))
    return 0


def show_steps(steps: list[tuple[str, str]]) -> None:
    """Print what `explain` gave."""
    for name, value in steps:
        say(f"{paint(name + ':', 'cyan')} {value}")


def say_parser() -> ArgumentParser:
    """The parser of `elysia voice say`."""
    parser = build_parser(
        "voice say",
        "TEXT --voice NAME [-o FILE] [--speed S] [--explain]",
        "Say a text into a WAV file. TEXT - reads it from standard input.",
        speak,
    )
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument(
        "--voice", default="espeak", metavar="NAME", help="see 'voice list' (default: espeak)"
    )
    parser.add_argument(
        "-o", "--output", default="out.wav", metavar="FILE", help="default: out.wav"
    )
    parser.add_argument("--speed", type=float, default=1.0, metavar="S", help="0.25 to 4")
    parser.add_argument("--explain", action="store_true", help="show each step to the sounds, too")
    return parser


def speak(args: Namespace) -> int:
    """Say the text sentence by sentence; the file is written whole at the end."""
    import sys

    from elysia.voice import voices
    from elysia.voice.audio import write_wav

    text = sys.stdin.read() if args.text == "-" else args.text
    file = voices.find(args.voice)
    if args.explain:
        show_steps(steps_for(file, text))
    voice = file.open()
    try:
        seconds = write_wav(args.output, sound(voice, text, args.speed * file.speed))
    finally:
        voice.close()
    if not seconds:
        warn("(There was nothing to say; the file is empty.)")
    say(f"{args.output}: {seconds:.2f} s")
    return 0


def sound(voice: Voice, text: str, speed: float) -> Iterator[Pcm]:
    """A text of any length, a sentence at a time."""
    from elysia.voice.sentences import split

    for sentence in split(text):
        yield from voice.synthesize(sentence, speed)


def steps_for(file: VoiceFile, text: str) -> list[tuple[str, str]]:
    """The steps of `voice explain`, in the writing and with the symbols of a VITS voice."""
    from elysia.voice.text.explain import explain as steps_of

    if file.engine != "vits":
        return steps_of(text)
    from elysia.voice.vits_card import VitsCard

    card = VitsCard.read((file.path.parent / file.settings.get("model", ".")).resolve())
    if card.cleaner == "characters":
        return steps_of(text)
    return steps_of(text, card.cleaner, card.symbols)


def list_parser() -> ArgumentParser:
    """The parser of `elysia voice list`."""
    return build_parser("voice list", "", "List the voices: files in tts/voices.", list_voices)


def list_voices(args: Namespace) -> int:
    """A line a voice; a damaged file is said, not hidden."""
    from elysia.core.errors import VoiceError
    from elysia.voice import voices

    where = voices.folder()
    for name in voices.names(where):
        try:
            file = voices.find(name, where)
        except VoiceError as error:
            warn(f"{Path(name).name}: {error}")
            continue
        say(f"{name:20}{file.engine:8}{file.description}")
    return 0


def import_parser() -> ArgumentParser:
    """The parser of `elysia voice import`."""
    parser = build_parser(
        "voice import",
        "CHECKPOINT [CONFIG] --name NAME [--speaker S] [--onnx]",
        "Bring a VITS voice: a generator (G_latest.pth) with its config (finetune_speaker.json), or a "
        "Hugging Face VITS folder. Nothing in the file is executed; other architectures are refused.",
        bring,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("config", metavar="CONFIG", nargs="?")
    parser.add_argument("--name", required=True, help="the voice's name from now on")
    parser.add_argument("--speaker", default="0", metavar="S", help="a name or number (default: 0)")
    parser.add_argument("--onnx", action="store_true", help="export for ONNX Runtime, and prove it")
    parser.add_argument("--out", metavar="DIR", help="default: work_dirs/voices/NAME")
    return parser


def bring(args: Namespace) -> int:
    """Convert, check, write the model folder and the voice file."""
    from elysia.voice.vits_import import bring as bring_checkpoint

    check_name(args.name)
    out = Path(args.out or Path("work_dirs") / "voices" / args.name)
    done = bring_checkpoint(args.checkpoint, args.config, out, onnx=args.onnx)
    write_voice(args.name, done, done.card.speaker_of(args.speaker), "brought by voice import")
    return 0


def check_name(name: str) -> None:
    """UsageError for what cannot be a voice's name."""
    import re

    if not re.fullmatch(r"[\w-]{1,64}", name):
        raise UsageError(f"A voice's name is letters, digits, - and _, not {name!r}.")


def write_voice(name: str, done: Imported, speaker: int, whence: str) -> None:
    """Write the voice file of a model folder, and say what there is now."""
    import os

    from elysia.core.files import write_atomic
    from elysia.voice import voices

    where, card = voices.folder(), done.card
    model = os.path.relpath(done.folder.resolve(), where.resolve()).replace(os.sep, "/")
    text = f'engine = "vits"\ndescription = "{name}, {whence}"\nmodel = "{model}"\n'
    write_atomic(where / f"{name}.toml", text + f"speaker = {speaker}\n")
    for remark in done.remarks:
        warn(f"note: {remark}")
    say(
        f"{done.folder}: {done.parameters / 1e6:.1f} M parameters, {card.speaker_count} speaker(s), "
        f"{len(card.symbols)} symbols ({card.cleaner}), {card.rate} Hz"
    )
    if done.difference is not None:
        say(f"ONNX differs from torch by at most {done.difference:.1e}")
    say(f'Say: elysia voice say "你好" --voice {name}')
