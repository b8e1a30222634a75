"""`elysia prove`: the merged model must answer as base and adapter do. Knows nothing of tensors."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from elysia.cli.options import add_hub, hub_of
from elysia.cli.output import build_parser, say


def prove_parser() -> ArgumentParser:
    """The parser of `elysia prove`."""
    parser = build_parser(
        "prove",
        "BASE ADAPTER MERGED [options]",
        "Compare the logits of MERGED with those of BASE under ADAPTER, on prompts of the "
        "training; fail when the adapter is not in MERGED.",
        prove,
    )
    parser.add_argument("base", help="the base model")
    parser.add_argument("adapter", help="the adapter folder")
    parser.add_argument("merged", help="what convert merge wrote")
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="TEXT",
        help="default: from the data that the run card names",
    )
    parser.add_argument("--count", type=int, default=8, metavar="N", help="prompts (default: 8)")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32",
        help="to compute in (default: float32)",
    )  # fmt: skip
    add_hub(parser, "where names lead (default: where the base was trained from)")
    parser.add_argument("--output", metavar="FILE", help="write the numbers there as JSON, too")
    return parser


def prove(args: Namespace) -> int:
    """Print the proof; a merged model without the adapter is an error."""
    from elysia.export import prove as proving
    from elysia.models.load import resolve

    adapter = resolve(args.adapter, args.hub or "huggingface")
    proof = proving.prove(
        resolve(args.base, hub_of(args, adapter)),
        adapter,
        Path(args.merged),
        args.prompts or training_prompts(adapter, args.count),
        dtype=args.dtype,
    )
    say(f"largest difference of the logits  {proof.max_diff:.3g}")
    say(f"KL(base + adapter, merged)        {proof.kl:.3g}")
    say(f"largest effect of the adapter     {proof.effect:.3g}")
    say("The adapter is in the merged model.")
    if args.output:
        output = Path(args.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(asdict(proof), indent=2) + "\n", encoding="utf-8")
    return 0


def training_prompts(adapter: Path, count: int) -> list[str]:
    """The first user messages of `count` training rows, spread over the data that the card names.

    Rendered with the card's template and system prompt. Data that is gone gives a few plain
    greetings.
    """
    from elysia.core.errors import DataError
    from elysia.core.messages import Message
    from elysia.core.run_card import RunCard
    from elysia.core.templates import PromptTemplate, prompt
    from elysia.data.convert import load_chosen
    from elysia.train.bundled import locate

    card = RunCard.read(adapter)
    said: list[str] = []
    for source in card.datasets if card else []:
        try:
            samples = load_chosen(locate(source["path"]), source["format"])
        except DataError:
            continue  # moved since the training
        users = [m.text for s in samples for m in s.messages[:2] if m.role == "user"]
        said += users[:: max(1, len(users) // count)][:count]
    said = said[:: max(1, len(said) // count)][:count] or ["你好!", "你是谁?", "Hello!"]
    if not (card and card.template):
        return said
    template = PromptTemplate.from_dict(card.template)
    system = [Message("system", card.system)] if card.system else []
    return [prompt([*system, Message("user", text)], template) for text in said]
