"""`elysia voice prepare`, `train` and `export`: from recordings to a voice.

Knows nothing of sound, and nothing of how training works.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.options import add_cfg_options, parse_cfg_options
from elysia.cli.output import build_parser, say, warn
from elysia.core.errors import UsageError

if TYPE_CHECKING:
    from elysia.voice.recordings.prepare import Wanted


def prepare_parser() -> ArgumentParser:
    """The parser of `elysia voice prepare`."""
    parser = build_parser(
        "voice prepare",
        "RECORDINGS --out DIR [--consent FILE] [--model FOLDER | --cleaner NAME]",
        "Make recordings ready to train on: decode, resample, trim, make evenly loud, check, report. "
        "RECORDINGS is a folder of WAV, FLAC, MP3 or OGG files with a .txt or .lab beside each, or a "
        "list (name|text, CSV). Needs a consent.toml beside them that names the speaker and what they "
        "allow.",
        prepare,
    )
    add = parser.add_argument
    add("recordings", metavar="RECORDINGS")
    add("--out", required=True, metavar="DIR", help="the folder to write")
    add("--consent", metavar="FILE", help="default: consent.toml or .txt beside the recordings")
    add("--model", metavar="FOLDER", help="a voice folder whose symbols, rate and hop are wanted")
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
    from elysia.voice.recordings import report
    from elysia.voice.recordings.prepare import prepare as make

    out = Path(args.out)
    manifest, judged = make(Path(args.recordings), out, wanted(args), args.consent, tell)
    say(report.text(manifest, judged).rstrip())
    say(f"{out}: {len(manifest.clips)} clips; the report is {out / 'report.html'}")
    return 0


def tell(done: int, of: int) -> None:
    """How far it is, on stderr, every few hundred recordings."""
    if done % 500 == 0:
        warn(f"{done} of {of} recordings")


def wanted(args: Namespace) -> Wanted:
    """What clips must be, from the flags: a model's own shape, or the one that is named."""
    from elysia.voice.recordings.prepare import Wanted
    from elysia.voice.recordings.spectrogram import Shape
    from elysia.voice.text.symbols import SYMBOLS
    from elysia.voice.vits_card import VitsCard

    if args.model:
        folder = Path(args.model)
        card, usual = VitsCard.read(folder), Shape.of_folder(folder)
    else:
        if args.cleaner not in SYMBOLS:
            raise UsageError(f"There is no cleaner '{args.cleaner}', only {', '.join(SYMBOLS)}.")
        card, usual = VitsCard(SYMBOLS[args.cleaner], args.cleaner), Shape()
    shape = Shape(args.rate or usual.rate, args.hop or usual.hop, args.window or usual.window)
    return Wanted(card, shape, args.shortest, args.longest)


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
        help="go on from a checkpoint; without a value, from the work dir's last",
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
    say(f"Make it a voice: elysia voice export {folder} --name NAME")
    return 0


def export_parser() -> ArgumentParser:
    """The parser of `elysia voice export`."""
    parser = build_parser(
        "voice export",
        "WORKDIR --name NAME [--onnx]",
        "Make a trained checkpoint a voice: a model folder as 'voice import' writes, and a voice file. "
        "WORKDIR is a training's (its newest checkpoint), or an iter_N.pth.",
        export,
    )
    parser.add_argument("source", metavar="WORKDIR")
    parser.add_argument("--name", required=True, help="the voice's name from now on")
    parser.add_argument("--onnx", action="store_true", help="export for ONNX Runtime, and prove it")
    parser.add_argument("--out", metavar="DIR", help="default: work_dirs/voices/NAME")
    return parser


def export(args: Namespace) -> int:
    """Write the model folder and the voice file."""
    from elysia.cli.voice import check_name, write_voice

    check_name(args.name)
    from elysia.voice.training.export import export as make

    out = Path(args.out or Path("work_dirs") / "voices" / args.name)
    done, speaker = make(Path(args.source), out, name=args.name, onnx=args.onnx)
    write_voice(args.name, done, speaker, "trained by voice train")
    return 0
