"""`elysia convert pth_to_hf | merge | split` and `quantize gguf | awq`: the way from a checkpoint to weights
for chat and serving.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from pathlib import Path

from elysia.cli.options import (
    add_cfg_options,
    add_hub,
    parse_cfg_options,
    require_at_least,
    resolve_hub,
)
from elysia.cli.output import build_parser, say
from elysia.cli.serve import LMDEPLOY_PYTHON
from elysia.cli.verify import get_training_prompts
from elysia.core.errors import UsageError

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
GGUF_TYPES = ("f32", "f16", "q8_0", "q4_k_m")


def add_shard_options(parser: ArgumentParser) -> None:
    """The flags that XTuner's converters share. Weights are always safetensors here."""
    parser.add_argument(
        "--max-shard-size", default="2GB", metavar="SIZE", help="of one weight file (default: 2GB)"
    )
    parser.add_argument(
        "--safe-serialization",
        action="store_true",
        help="always on; accepted because XTuner has it",
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
    """Convert, and print the folder that was written."""
    if args.save_format not in (None, "huggingface"):
        raise UsageError("cli.save_format_is_llava")
    options = parse_cfg_options(args.cfg_options)
    from elysia.export import adapter
    from elysia.train.config.settings import load_settings

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
        raise UsageError("cli.no_clip")
    from elysia.export import merge as merging
    from elysia.models.loading import resolve_model

    adapter = resolve_model(args.adapter_name_or_path, args.hub or "huggingface")
    report = merging.merge_adapter(
        resolve_model(args.model_name_or_path, resolve_hub(args, adapter)),
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
        "convert split", "SRC DIR", "Split a model's weights into one file per tensor.", split
    )
    parser.add_argument("src_dir", metavar="SRC", help="a model folder")
    parser.add_argument("dst_dir", metavar="DIR", help="the folder to write")
    return parser


def split(args: Namespace) -> int:
    """Split, and print the folder that was written."""
    from elysia.export import shards as splitting

    splitting.split_per_tensor(Path(args.src_dir), Path(args.dst_dir))
    say(f"Wrote {args.dst_dir}")
    return 0


def gguf_parser() -> ArgumentParser:
    """The parser of `elysia quantize gguf`."""
    parser = build_parser(
        "quantize gguf",
        "MODEL [--type TYPE] [-o FILE] [options]",
        "Write a model folder (InternLM2, Llama, Qwen2) as one GGUF file with its chat template and "
        "run card, and check it against transformers. A file that fails the check is deleted.",
        gguf,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, or a name on the hub")
    parser.add_argument(
        "--type", choices=GGUF_TYPES, default="q4_k_m", help="of the weights (default: q4_k_m)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="default: MODEL.TYPE.gguf, beside the folder"
    )
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens; beyond the model's own with dynamic NTK"
    )
    parser.add_argument(
        "--max-kl", type=float, metavar="NATS",
        help="the largest mean KL from transformers (default: 0.02 for q8_0, 0.2 for q4_k_m)",
    )  # fmt: skip
    add_hub(parser)
    return parser


def gguf(args: Namespace) -> int:
    """Write and check the file, and print the measurements."""
    from elysia.export.gguf_writer import quantize_gguf
    from elysia.models.loading import resolve_model

    model = resolve_model(args.model, args.hub or "huggingface")
    written = quantize_gguf(
        model,
        Path(args.output) if args.output else None,
        file_type=args.type,
        context=args.context,
        prompts=get_training_prompts(model, 4),
        max_kl=args.max_kl,
    )
    proof = written.verification
    say(f"greedy tokens as transformers'    {proof.equal} of {proof.tokens}")
    say(f"KL(transformers, llama.cpp)       {proof.kl:.3g} nats")
    say(f"texts with the same token ids     {proof.lines_equal} of {proof.lines}")
    say(f"Wrote {written.path} ({written.path.stat().st_size / 1e6:.1f} MB)")
    return 0


def awq_parser() -> ArgumentParser:
    """The parser of `elysia quantize awq`."""
    parser = build_parser(
        "quantize awq",
        "MODEL [-o DIR] [options]",
        "Write a model folder (InternLM2, Llama, Qwen2) with AWQ weights, 4 bits in groups of 128, for "
        "LMDeploy on GPUs. LMDeploy quantizes, in its own environment, on the conversations that the "
        "model was trained on; the result is checked against the model, and deleted if that fails.",
        awq,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, or a name on the hub")
    add = parser.add_argument
    add("-o", "--output", metavar="DIR", help="default: MODEL-awq, beside the folder")
    add("--samples", type=int, default=128, metavar="N",
        help="rows of tokens to calibrate with; 0 rounds without (default: 128)")  # fmt: skip
    add("--length", type=int, default=512, metavar="N", help="tokens of a row (default: 512)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    add("--max-kl", type=float, metavar="NATS", help="from the model, on average (default: 0.2)")
    add("--python", default=LMDEPLOY_PYTHON, metavar="FILE",
        help=f"of LMDeploy's environment (default: {LMDEPLOY_PYTHON}, made by 'make lmdeploy')")  # fmt: skip
    add_hub(parser)
    return parser


def awq(args: Namespace) -> int:
    """Quantize and check, and print the measurements."""
    from elysia.engines.lmdeploy import require_lmdeploy
    from elysia.export.awq import quantize_awq
    from elysia.models.loading import resolve_model

    require_at_least(args, 0, "--samples")
    require_at_least(args, 1, "--length")
    require_lmdeploy(Path(args.python))
    model = resolve_model(args.model, args.hub or "huggingface")
    written = quantize_awq(
        model,
        Path(args.output) if args.output else None,
        python=Path(args.python),
        samples=args.samples,
        length=args.length,
        device=args.device,
        prompts=tuple(get_training_prompts(model, 4)),
        max_kl=args.max_kl,
    )
    proof = written.verification
    size = sum(path.stat().st_size for path in written.path.glob("*.safetensors"))
    say(f"calibrated with                   {written.rows} rows of {written.length} tokens")
    say(f"KL(model, AWQ)                    {proof.kl:.3g} nats, at most {proof.kl_max:.3g}")
    say(f"Wrote {written.path} ({size / 1e6:.1f} MB)")
    return 0
