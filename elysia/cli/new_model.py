"""`elysia train-tokenizer` and `init-model`: a small new model for demos and tests; `import gguf`: a base."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from elysia.cli.output import build_parser, say


def train_tokenizer_parser() -> ArgumentParser:
    """The parser of `elysia train-tokenizer`."""
    parser = build_parser(
        "train-tokenizer",
        "FILE [FILE ...] --output DIR [options]",
        "Train a byte-level BPE tokenizer with InternLM2's chat tokens on the text of the files.",
        train_tokenizer,
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="datasets (.json, .jsonl) or text (.txt)"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=4096,
        metavar="N",
        help="special tokens counted (default: 4096)",
    )
    parser.add_argument("--overwrite", action="store_true", help="DIR may already hold files")
    return parser


def train_tokenizer(args: Namespace) -> int:
    """Train, and print the folder that was written."""
    from elysia.models import tiny

    tiny.train_tokenizer(
        [Path(file) for file in args.files],
        args.vocab_size,
        Path(args.output),
        overwrite=args.overwrite,
    )
    say(f"Wrote a tokenizer to {args.output}")
    return 0


def init_model_parser() -> ArgumentParser:
    """The parser of `elysia init-model`."""
    parser = build_parser(
        "init-model",
        "DIR --tokenizer DIR [options]",
        "Create a model with random weights. The defaults are the demo's: a few million parameters.",
        init_model,
    )
    parser.add_argument("output", metavar="DIR", help="the folder to write")
    parser.add_argument("--tokenizer", required=True, metavar="DIR", help="a tokenizer's folder")
    parser.add_argument(
        "--architecture", choices=["internlm2", "llama", "qwen2"], default="internlm2",
        help="default: internlm2",
    )  # fmt: skip
    sizes = {
        "hidden-size": 256, "layers": 4, "heads": 4, "kv-heads": 2, "intermediate-size": 704,
        "max-position-embeddings": 2048, "seed": 0,
    }  # fmt: skip
    for flag, default in sizes.items():
        parser.add_argument(
            f"--{flag}", type=int, default=default, metavar="N", help=f"default: {default}"
        )
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32",
        help="default: float32",
    )  # fmt: skip
    parser.add_argument(
        "--tie-word-embeddings", action="store_true", help="one matrix for input and output words"
    )
    parser.add_argument("--overwrite", action="store_true", help="DIR may already hold files")
    return parser


def init_model(args: Namespace) -> int:
    """Create the model, and print the folder that was written."""
    from elysia.models import tiny

    tiny.init_model(
        Path(args.output),
        tokenizer=Path(args.tokenizer),
        architecture=args.architecture,
        hidden_size=args.hidden_size,
        layers=args.layers,
        heads=args.heads,
        kv_heads=args.kv_heads,
        intermediate_size=args.intermediate_size,
        max_position_embeddings=args.max_position_embeddings,
        tie_word_embeddings=args.tie_word_embeddings,
        seed=args.seed,
        dtype=args.dtype,
        overwrite=args.overwrite,
    )
    say(f"Wrote a model with random weights to {args.output}")
    return 0


def import_gguf_parser() -> ArgumentParser:
    """The parser of `elysia import gguf`."""
    parser = build_parser(
        "import gguf",
        "FILE.gguf DIR [options]",
        "Turn a GGUF, as Ollama and llama.cpp use them, into a model folder that can be trained: weights "
        "without their quantization, tokenizer and chat template. The folder is compared with llama.cpp "
        "on the file, and deleted if they differ.",
        import_gguf,
    )
    parser.add_argument("file", metavar="FILE.gguf", help="the model")
    parser.add_argument("output", metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto",
        help="default: the file's own, and bfloat16 for a quantized file",
    )  # fmt: skip
    parser.add_argument(
        "--no-check", action="store_true", help="do not compare the folder with llama.cpp"
    )
    return parser


def import_gguf(args: Namespace) -> int:
    """Import and compare, and print what was written."""
    from elysia.export.verify_gguf import ImportVerification, verify_import
    from elysia.models.gguf import import_gguf as importing

    file = Path(args.file)
    proofs: list[ImportVerification] = []

    def check(folder: Path) -> None:
        proofs.append(verify_import(folder, file))

    imported = importing.import_gguf(
        file, Path(args.output), dtype=args.dtype, check=None if args.no_check else check
    )
    say(f"architecture                      {imported.model_type}")
    say(f"parameters                        {imported.parameters:,} in {imported.dtype}")
    say(f"a reply ends at                   {' '.join(imported.end_tokens)}")
    say(f"chat template                     {'its own' if imported.has_template else 'none'}")
    for proof in proofs:
        say(f"KL(folder, llama.cpp)             {proof.kl:.3g} nats")
        say(f"texts with the same token ids     {proof.lines_equal} of {proof.lines}")
    say(f"Wrote {args.output}")
    return 0
