"""`elysia quantize gguf | awq`: flags for elysia.export, and its reports. Knows nothing of tensors."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from elysia.cli.lmdeploy import PYTHON
from elysia.cli.options import add_hub
from elysia.cli.output import build_parser, say
from elysia.cli.prove import training_prompts

GGUF_TYPES = ("f32", "f16", "q8_0", "q4_k_m")


def gguf_parser() -> ArgumentParser:
    """The parser of `elysia quantize gguf`."""
    parser = build_parser(
        "quantize gguf",
        "MODEL [--type TYPE] [-o FILE] [options]",
        "Write a model folder (InternLM2, Llama, Qwen2) as one GGUF file with its chat template and "
        "run card, and prove it against transformers. A file whose proof fails is not kept.",
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
    """Write, prove, and print what was measured."""
    from elysia.export.gguf import quantize
    from elysia.models.load import resolve

    model = resolve(args.model, args.hub or "huggingface")
    written = quantize(
        model,
        Path(args.output) if args.output else None,
        file_type=args.type,
        context=args.context,
        prompts=training_prompts(model, 4),
        max_kl=args.max_kl,
    )
    proof = written.proof
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
        "model was trained on; the result is proved against the model, and not kept if that fails.",
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
    add("--python", default=PYTHON, metavar="FILE",
        help=f"of LMDeploy's environment (default: {PYTHON}, made by 'make lmdeploy')")  # fmt: skip
    add_hub(parser)
    return parser


def awq(args: Namespace) -> int:
    """Quantize, prove, and print what was measured."""
    from elysia.core.errors import UsageError
    from elysia.engines.lmdeploy import refuse_absent
    from elysia.export.awq import quantize_awq
    from elysia.models.load import resolve

    if args.samples < 0 or args.length < 1:
        raise UsageError("--samples must be 0 or more, --length 1 or more.")
    refuse_absent(Path(args.python))
    model = resolve(args.model, args.hub or "huggingface")
    written = quantize_awq(
        model,
        Path(args.output) if args.output else None,
        python=Path(args.python),
        samples=args.samples,
        length=args.length,
        device=args.device,
        prompts=tuple(training_prompts(model, 4)),
        max_kl=args.max_kl,
    )
    proof = written.proof
    size = sum(path.stat().st_size for path in written.path.glob("*.safetensors"))
    say(f"calibrated with                   {written.rows} rows of {written.length} tokens")
    say(f"KL(model, AWQ)                    {proof.kl:.3g} nats, at most {proof.kl_max:.3g}")
    say(f"Wrote {written.path} ({size / 1e6:.1f} MB)")
    return 0
