"""`elysia voice`: say a text, list voices, explain how a text is read, import a VITS checkpoint, and train a
voice from recordings.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.options import add_cfg_options, parse_cfg_options
from elysia.cli.output import build_parser, paint, say, warn
from elysia.core.errors import UsageError, VoiceError
from elysia.core.files import write_atomic
from elysia.core.paths import WORK_DIRS, get_voices_folder

if TYPE_CHECKING:
    from elysia.voice.base import AudioChunk, TTSEngine
    from elysia.voice.dataset.prepare import ClipRequirements
    from elysia.voice.registry import VoiceFile
    from elysia.voice.vits.checkpoint_import import ImportResult


def explain_parser() -> ArgumentParser:
    """The parser of `elysia voice explain`."""
    parser = build_parser(
        "voice explain",
        "TEXT [--cleaner NAME]",
        "Show each step from a text to what is spoken: stripped, written out, languages, pinyin, symbols.",
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
    """Print the steps, a line each."""
    from elysia.voice.frontend.cleaners import CLEANERS
    from elysia.voice.frontend.pipeline import explain_steps

    check_cleaner(args.cleaner, CLEANERS)
    show_steps(explain_steps(args.text, args.cleaner, directions=args.directions))
    return 0


def check_cleaner(name: str, known: Iterable[str]) -> None:
    """UsageError unless `name` is one of the `known` cleaners."""
    if name not in known:
        raise UsageError("cli.no_such_cleaner", name=name, known=list(known))


def show_steps(steps: list[tuple[str, str]]) -> None:
    """Print steps as (name, result) pairs, a line each."""
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
    """Speak the text sentence by sentence, and write the file when all of it is there."""
    from elysia.voice import registry
    from elysia.voice.audio import write_wav

    text = sys.stdin.read() if args.text == "-" else args.text
    file = registry.find_voice(args.voice)
    if args.explain:
        show_steps(get_reading_steps(file, text))
    voice = file.open()
    try:
        seconds = write_wav(args.output, iter_sound(voice, text, args.speed * file.speed))
    finally:
        voice.close()
    if not seconds:
        warn("(There was nothing to say; the file is empty.)")
    say(f"{args.output}: {seconds:.2f} s")
    return 0


def iter_sound(voice: TTSEngine, text: str, speed: float) -> Iterator[AudioChunk]:
    """The sound of a text of any length, synthesized a sentence at a time."""
    from elysia.voice.sentence_splitter import split_sentences

    for sentence in split_sentences(text):
        yield from voice.synthesize(sentence, speed)


def get_reading_steps(file: VoiceFile, text: str) -> list[tuple[str, str]]:
    """The steps of `voice explain`; for a VITS voice, with its own cleaner and symbols."""
    from elysia.voice.frontend.pipeline import explain_steps

    if file.engine != "vits":
        return explain_steps(text)
    from elysia.voice.vits.config import VoiceConfig

    card = VoiceConfig.read((file.path.parent / file.settings.get("model", ".")).resolve())
    if card.cleaner == "characters":
        return explain_steps(text)
    return explain_steps(text, card.cleaner, card.symbols)


def list_parser() -> ArgumentParser:
    """The parser of `elysia voice list`."""
    return build_parser("voice list", "", "List the voices: files in tts/voices.", list_voices)


def list_voices(args: Namespace) -> int:
    """Print a line for each voice, and a warning for each damaged file."""
    from elysia.voice import registry

    where = get_voices_folder()
    for name in registry.list_voices(where):
        try:
            file = registry.find_voice(name, where)
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
        "Import a VITS voice: a generator (G_latest.pth) with its config (finetune_speaker.json), or a "
        "Hugging Face VITS folder. Nothing in the file is executed; other architectures are refused.",
        import_voice,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("config", metavar="CONFIG", nargs="?")
    parser.add_argument("--name", required=True, help="the voice's name from now on")
    parser.add_argument("--speaker", default="0", metavar="S", help="a name or number (default: 0)")
    parser.add_argument("--onnx", action="store_true", help="export for ONNX Runtime, and check it")
    parser.add_argument("--out", metavar="DIR", help="default: work_dirs/voices/NAME")
    return parser


def import_voice(args: Namespace) -> int:
    """Convert and check the checkpoint, then write the model folder and the voice file."""
    from elysia.voice.vits.checkpoint_import import import_checkpoint

    check_name(args.name)
    out = Path(args.out or WORK_DIRS / "voices" / args.name)
    result = import_checkpoint(args.checkpoint, args.config, out, onnx=args.onnx)
    speaker = result.config.resolve_speaker(args.speaker)
    write_voice(args.name, result, speaker, "brought by voice import")
    return 0


def check_name(name: str) -> None:
    """UsageError for a text that cannot be a voice's name."""
    if not re.fullmatch(r"[\w-]{1,64}", name):
        raise UsageError("cli.bad_voice_name", name=repr(name))


def write_voice(name: str, result: ImportResult, speaker: int, origin: str) -> None:
    """Write the voice file of a model folder, and print what the voice is."""
    where, config = get_voices_folder(), result.config
    model = os.path.relpath(result.folder.resolve(), where.resolve()).replace(os.sep, "/")
    text = f'engine = "vits"\ndescription = "{name}, {origin}"\nmodel = "{model}"\n'
    write_atomic(where / f"{name}.toml", text + f"speaker = {speaker}\n")
    for remark in result.remarks:
        warn(f"note: {remark}")
    say(
        f"{result.folder}: {result.parameters / 1e6:.1f} M parameters, {config.speaker_count} speaker(s), "
        f"{len(config.symbols)} symbols ({config.cleaner}), {config.rate} Hz"
    )
    if result.difference is not None:
        say(f"ONNX differs from torch by at most {result.difference:.1e}")
    say(f'Say: elysia voice say "你好" --voice {name}')


def prepare_parser() -> ArgumentParser:
    """The parser of `elysia voice prepare`."""
    parser = build_parser(
        "voice prepare",
        "RECORDINGS --out DIR [--consent FILE] [--model FOLDER | --cleaner NAME]",
        "Prepare recordings for training: decode, resample, trim, normalize loudness, check, report. "
        "RECORDINGS is a folder of WAV, FLAC, MP3 or OGG files with a .txt or .lab beside each, or a "
        "list (name|text, CSV). Needs a consent.toml beside them that names the speaker and what they "
        "allow.",
        prepare,
    )
    add = parser.add_argument
    add("recordings", metavar="RECORDINGS")
    add("--out", required=True, metavar="DIR", help="the folder to write")
    add("--consent", metavar="FILE", help="default: consent.toml or .txt beside the recordings")
    add("--model", metavar="FOLDER", help="a voice folder whose symbols, rate and hop to use")
    add(
        "--cleaner",
        default="cjke_cleaners2",
        help="without --model: chinese_cleaners, cjke_cleaners2 or pinyin (default: cjke_cleaners2)",
    )
    add("--rate", type=int, metavar="HZ", help="default: the model's, else 22050")
    add("--hop", type=int, metavar="N", help="samples a frame (default: the model's, else 256)")
    add("--window", type=int, metavar="N", help="samples (default: the model's, else 1024)")
    add("--shortest", type=float, default=0.7, metavar="S", help="seconds of a clip (default: 0.7)")
    add("--longest", type=float, default=15.0, metavar="S", help="seconds of a clip (default: 15)")
    return parser


def prepare(args: Namespace) -> int:
    """Write the folder and print its report."""
    from elysia.voice.dataset.prepare import prepare_dataset, report_text

    out = Path(args.out)
    manifest, results = prepare_dataset(
        Path(args.recordings), out, build_requirements(args), args.consent, report_progress
    )
    say(report_text(manifest, results).rstrip())
    say(f"{out}: {len(manifest.clips)} clips; the report is {out / 'report.html'}")
    return 0


def report_progress(count: int, total: int) -> None:
    """Print on stderr, every few hundred recordings, how many are done."""
    if count % 500 == 0:
        warn(f"{count} of {total} recordings")


def build_requirements(args: Namespace) -> ClipRequirements:
    """What clips must be like: as the model of --model needs them, changed by the other flags."""
    from elysia.voice.dataset.prepare import ClipRequirements
    from elysia.voice.dataset.spectrogram import SpectrogramConfig
    from elysia.voice.frontend.cleaners import SYMBOLS
    from elysia.voice.vits.config import VoiceConfig

    if args.model:
        folder = Path(args.model)
        card, base = VoiceConfig.read(folder), SpectrogramConfig.from_folder(folder)
    else:
        check_cleaner(args.cleaner, SYMBOLS)
        card, base = VoiceConfig(SYMBOLS[args.cleaner], args.cleaner), SpectrogramConfig()
    spectrogram = SpectrogramConfig(
        args.rate or base.rate, args.hop or base.hop, args.window or base.window
    )
    return ClipRequirements(card, spectrogram, args.shortest, args.longest)


def train_parser() -> ArgumentParser:
    """The parser of `elysia voice train`."""
    parser = build_parser(
        "voice train",
        "CONFIG [options]",
        "Train a VITS voice on what 'voice prepare' wrote, from random weights or from a base; on a GPU, "
        "or on a CPU for small ones.",
        train,
    )
    parser.add_argument("config", help="a config file, or the name of one in configs/voice")
    parser.add_argument("--work-dir", metavar="DIR", help="default: work_dirs/<config>")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CKPT",
        help="continue from a checkpoint; without a value, from the work dir's last",
    )
    parser.add_argument("--seed", type=int, help="default: the config's")
    add_cfg_options(parser)
    return parser


def train(args: Namespace) -> int:
    """Run the training to its end."""
    options = parse_cfg_options(args.cfg_options)
    from elysia.voice.training.launch import train as run

    folder = run(
        args.config, work_dir=args.work_dir, resume=args.resume, seed=args.seed, cfg_options=options
    )
    say(f"Turn it into a voice: elysia voice export {folder} --name NAME")
    return 0


def export_parser() -> ArgumentParser:
    """The parser of `elysia voice export`."""
    parser = build_parser(
        "voice export",
        "WORKDIR --name NAME [--onnx]",
        "Turn a trained checkpoint into a voice: a model folder as 'voice import' writes, and a voice file. "
        "WORKDIR is a training's (its newest checkpoint), or an iter_N.pth.",
        export,
    )
    parser.add_argument("source", metavar="WORKDIR")
    parser.add_argument("--name", required=True, help="the voice's name from now on")
    parser.add_argument("--onnx", action="store_true", help="export for ONNX Runtime, and check it")
    parser.add_argument("--out", metavar="DIR", help="default: work_dirs/voices/NAME")
    return parser


def export(args: Namespace) -> int:
    """Write the model folder and the voice file."""
    from elysia.voice.training.export import export_voice

    check_name(args.name)
    out = Path(args.out or WORK_DIRS / "voices" / args.name)
    result, speaker = export_voice(Path(args.source), out, name=args.name, onnx=args.onnx)
    write_voice(args.name, result, speaker, "trained by voice train")
    return 0
