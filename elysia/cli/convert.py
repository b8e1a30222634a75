"""`elysia convert pth_to_hf | merge | split` and `elysia prove`: flags for elysia.export, and its
reports.

Knows nothing of tensors.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from pathlib import Path

from elysia.cli.options import add_cfg_options, add_hub, hub_of, parse_cfg_options
from elysia.cli.output import build_parser, say
from elysia.core.errors import UsageError

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def add_shard_options(parser: ArgumentParser) -> None:
    """The flags that XTuner's converters share. Weights are always safetensors here."""
    parser.add_argument(
        "--max-shard-size", default="2GB", metavar="SIZE", help="of one weight file (default: 2GB)"
    )
    parser.add_argument(
        "--safe-serialization", action="store_true", help="always so; taken for XTuner's sake"
    )


def pth_to_hf_parser() -> ArgumentParser:
    """The parser of `elysia convert pth_to_hf`."""
    parser = build_parser(
        "convert pth_to_hf",
        "CONFIG PTH DIR [options]",
        "Turn a training checkpoint into an adapter folder (LoRA, QLoRA) or a model folder (full).",
        pth_to_hf,
    )
    parser.add_argument("config", help="the config that was trained")
    parser.add_argument(
        "pth_model",
        metavar="PTH",
        help="iter_N.pth (a file, or DeepSpeed's folder); of a work dir, the last",
    )
    parser.add_argument("save_dir", metavar="DIR", help="the folder to write")
    parser.add_argument("--fp32", action="store_true", help="save in fp32, not the trained dtype")
    add_shard_options(parser)
    parser.add_argument(
        "--save-format", choices=["xtuner", "official", "huggingface"], help=SUPPRESS
    )
    add_cfg_options(parser)
    return parser


def pth_to_hf(args: Namespace) -> int:
    """Convert, and say where it went."""
    if args.save_format not in (None, "huggingface"):
        raise UsageError("--save-format is for LLaVA models, which are not served here.")
    options = parse_cfg_options(args.cfg_options)
    from elysia.export import adapter
    from elysia.train.settings import load_settings

    settings = load_settings(args.config, options)
    folder = adapter.pth_to_hf(
        settings,
        Path(args.pth_model),
        Path(args.save_dir),
        fp32=args.fp32,
        max_shard_size=args.max_shard_size,
    )
    say(f"Wrote {folder}")
    return 0


def merge_parser() -> ArgumentParser:
    """The parser of `elysia convert merge`."""
    parser = build_parser(
        "convert merge",
        "LLM ADAPTER DIR [options]",
        "Write base and adapter as one model, shard by shard.",
        merge,
    )
    parser.add_argument("model_name_or_path", metavar="LLM", help="the base model")
    parser.add_argument("adapter_name_or_path", metavar="ADAPTER", help="the adapter folder")
    parser.add_argument("save_dir", metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--base-weights",
        choices=["original", "as-trained"],
        default="original",
        help="merge onto the base as it is, or onto its quantized weights that QLoRA saw "
        "(default: original)",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="default: as the base stores its weights")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default: auto)")
    add_hub(parser, "where names lead (default: where the base was trained from)")
    add_shard_options(parser)
    parser.add_argument("--is-clip", action="store_true", help=SUPPRESS)
    return parser


def merge(args: Namespace) -> int:
    """Merge, and print the report."""
    if args.is_clip:
        raise UsageError("--is-clip: CLIP models are not served here.")
    from elysia.export import merge as merging
    from elysia.models.load import resolve

    adapter = resolve(args.adapter_name_or_path, args.hub or "huggingface")
    report = merging.merge(
        resolve(args.model_name_or_path, hub_of(args, adapter)),
        adapter,
        Path(args.save_dir),
        device=args.device,
        max_shard_size=args.max_shard_size,
        base_weights=args.base_weights,
        dtype=DTYPES.get(args.dtype),
    )
    say(str(report))
    return 0


def split_parser() -> ArgumentParser:
    """The parser of `elysia convert split`."""
    parser = build_parser(
        "convert split", "SRC DIR", "Cut a model's weight files into one file a tensor.", split
    )
    parser.add_argument("src_dir", metavar="SRC", help="a model folder")
    parser.add_argument("dst_dir", metavar="DIR", help="the folder to write")
    return parser


def split(args: Namespace) -> int:
    """Split, and say where it went."""
    from elysia.export import split as splitting

    splitting.split(Path(args.src_dir), Path(args.dst_dir))
    say(f"Wrote {args.dst_dir}")
    return 0
