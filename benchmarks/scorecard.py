"""`python benchmarks/scorecard.py BASE`: does the scorecard order models as it must?

From BASE (`make demo` leaves work_dirs/demo/base) five models: the base, her, her with replay, her
over-trained on few rows, and somebody else. Each is trained here, by a plain loop, and put through
the whole scorecard; the table is what docs/scorecard.md shows. Asserts nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from elysia.core.messages import Message
from elysia.core.persona import Persona
from elysia.core.run_card import RunCard
from elysia.core.templates import PromptTemplate, all_stop_words, render
from elysia.data.encode import encode
from elysia.data.formats import xtuner
from elysia.data.generate import self_cognition
from elysia.engines.base import Request, Sampling
from elysia.engines.batch import replies
from elysia.engines.transformers import TransformersEngine
from elysia.evaluate.comparison import as_text
from elysia.evaluate.likelihood import Likelihood
from elysia.evaluate.scorecard import Material, score, talks_of
from elysia.models.load import load_causal_lm, load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
NEW = 40  # tokens of a reply at most
Talks = Sequence[Sequence[Message]]


def rows(name: str) -> list[list[Message]]:
    """A bundled file's dialogues, shuffled."""
    made = [xtuner(row) for row in json.loads((ROOT / "data" / name).read_text(encoding="utf-8"))]
    random.Random(3).shuffle(made)
    return made


def trained(base: Any, reader: Likelihood, talks: Talks, epochs: int, lr: float) -> Any:
    """A copy of `base` after some epochs over `talks`, 8 rows a step."""
    model = copy.deepcopy(base).train()
    encoded = [encode(render(talk, reader.template), reader.tokenizer) for talk in talks]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    rng = random.Random(0)
    for _ in range(epochs):
        rng.shuffle(encoded)
        for start in range(0, len(encoded), 8):
            batch = encoded[start : start + 8]
            width = max(len(row.ids) for row in batch)
            ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in batch])
            labels = torch.tensor([row.labels + [-100] * (width - len(row.ids)) for row in batch])
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def material(count: int, hers: Talks, held: Talks, general: Talks) -> Material:
    """What every model is measured on; `hers` is what three of them were trained on."""
    probes = json.loads((ROOT / "data/probes.json").read_text(encoding="utf-8"))["identity"]
    ordinary = json.loads((ROOT / "data/probes_ordinary.json").read_text(encoding="utf-8"))
    talks = [talk for row in held for talk in talks_of(row)][:count]
    others = [talk for row in general for talk in talks_of(row)]
    return Material(
        Persona.load(ROOT / "configs/personas/elysia.json"),
        talks,
        others[:count],
        [m.text for row in hers for m in row if m.role == "assistant"],
        [reply for _, reply in others],
        [(probe["lang"], probe["text"]) for probe in probes[:: max(1, 100 // count)]],
        [probe["text"] for probe in ordinary[:count]],
    )


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("--rows", type=int, default=450, help="of her dialogues (default: 450)")
    parser.add_argument("--count", type=int, default=50, help="replies measured (default: 50)")
    args = parser.parse_args()
    base = load_causal_lm(Path(args.base), dtype="float32", device="cpu")
    tokenizer = load_tokenizer(Path(args.base))
    template = PromptTemplate.from_dict(RunCard.read(args.base).template)
    reader = Likelihood(base, tokenizer, template)
    every, general = rows("elysia.json"), rows("chat.json")
    hers, held, replay = every[: args.rows], every[-600:], general[150 : 150 + args.rows]
    known = {(a[-1].text, b) for row in hers for a, b in talks_of(row)}
    held = [row for row in held if not any((a[-1].text, b) in known for a, b in talks_of(row))]
    wrong = [[Message("user", t.ask), Message("assistant", t.reply)]
             for row in self_cognition("阿砚", "山风", args.rows) for t in row]  # fmt: skip
    plans: dict[str, tuple[Talks, int]] = {
        "her": (hers, 2), "mixed": ([*hers, *replay], 2), "over": (hers[:100], 20), "other": (wrong, 2),
    }  # fmt: skip
    measured = material(args.count, hers, held, general[:150])
    cards = []
    for name, plan in [*plans.items(), ("base", None)]:
        began = time.perf_counter()
        model = trained(base, reader, *plan, lr=1e-3) if plan else base
        engine = TransformersEngine(model, tokenizer)
        sampling = Sampling(max_new_tokens=NEW, temperature=0)

        def say(talks: Talks, engine: Any = engine, sampling: Any = sampling) -> list[str]:
            stop = all_stop_words(template)
            return list(
                replies(engine, [Request(t, template, stop, sampling) for t in talks], batch=32)
            )

        own = Likelihood(model, tokenizer, template)
        cards.append(score(name, own, say, measured, max_new_tokens=NEW).to_dict())
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    print("\n".join(as_text(cards)))


if __name__ == "__main__":
    main()
