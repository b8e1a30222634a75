"""`python benchmarks/scorecard.py`: does the scorecard order models as it must?

For each seed a tiny base learns to speak from nothing, and four models are made of it: her, her with
replay, her over-trained (the same rows, many more epochs), and somebody else. Her held-out
replies are none that she was trained on: the right answer is then no training reply, and copying
shows. Prints each seed's scorecards and how often each order held.
Asserts nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from elysia.core.messages import Message
from elysia.core.persona import Persona
from elysia.core.templates import get_stop_words, get_template, render_training_pieces
from elysia.data.formats.registry import xtuner
from elysia.data.synthesis.persona_rows import self_cognition_rows
from elysia.data.tokenize.encoder import encode
from elysia.engines.base import GenerationRequest, Sampling
from elysia.engines.transformers import TransformersEngine
from elysia.evaluate.compare import compute_gains, render_text
from elysia.evaluate.eval_data import iter_reply_examples
from elysia.evaluate.likelihood import ReplyScorer
from elysia.evaluate.scorecard import EvaluationData, score_model
from elysia.models import tiny
from elysia.models.batch_generate import generate_batch
from elysia.models.loading import load_causal_lm, load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = get_template("internlm2_chat")
NEW = 40  # tokens of a reply at most
IDENTITY = 80  # rows of who she is, beside those of her talk
EACH = 2  # rows of hers to one reply
FEW, MANY = 4, 30  # epochs of a model that is trained, and of one that is over-trained
Talks = Sequence[Sequence[Message]]

# (what must hold, measure, which model, is above or below which): of the four
ORDERS: tuple[tuple[str, str, str, Callable[[float, float], bool], str], ...] = (
    ("trained reads her lines better", "heldout_bits", "her", float.__lt__, "base"),
    ("trained sounds more like her", "style_share", "her", float.__gt__, "base"),
    ("trained is nearer to her lines", "chrf", "her", float.__gt__, "base"),
    ("trained knows who she is (zh)", "identity_zh", "her", float.__gt__, "base"),
    ("trained knows who she is (en)", "identity_en", "her", float.__gt__, "base"),
    ("over-trained copies more", "copy_rate", "over", float.__gt__, "her"),
    ("over-trained copies longer runs", "copy_mean", "over", float.__gt__, "her"),
    ("over-trained copies whole replies", "copy_whole", "over", float.__gt__, "her"),
    ("over-trained forgets more", "forgetting", "over", float.__gt__, "her"),
    ("mixed forgets less", "forgetting", "mixed", float.__lt__, "her"),
    ("mixed leaks less", "leak", "mixed", float.__lt__, "her"),
    ("another character loses the line", "next_line", "other", float.__lt__, "her"),
)


def rows(name: str, rng: random.Random) -> list[list[Message]]:
    """A bundled file's dialogues, shuffled."""
    made = [xtuner(row) for row in json.loads((ROOT / "data" / name).read_text(encoding="utf-8"))]
    rng.shuffle(made)
    return made


def by_reply(talks: Talks) -> list[list[Sequence[Message]]]:
    """The one-turn dialogues with each reply, in the order in which replies first come."""
    found: dict[str, list[Sequence[Message]]] = {}
    for talk in talks:
        if len(talk) == 2:
            found.setdefault(talk[-1].text, []).append(talk)
    return list(found.values())


def learn(model: Any, tokenizer: Any, talks: Talks, epochs: int, lr: float, seed: int) -> Any:
    """`model` after some epochs over `talks`, 16 rows a step."""
    encoded = [encode(render_training_pieces(talk, TEMPLATE), tokenizer) for talk in talks]
    steps = epochs * -(-len(encoded) // 16)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=lr, weight_decay=0.0)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    rng = random.Random(seed)
    for _ in range(epochs):
        rng.shuffle(encoded)
        for start in range(0, len(encoded), 16):
            batch = encoded[start : start + 16]
            width = max(len(row.ids) for row in batch)
            ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in batch])
            labels = torch.tensor([row.labels + [-100] * (width - len(row.ids)) for row in batch])
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            falling.step()
            optimizer.zero_grad()
    return model.eval()


def material(count: int, hers: Talks, held: Talks, general: Talks, others: Talks) -> EvaluationData:
    """What every model is measured on; `hers` is what three of them were trained on."""
    probes = json.loads((ROOT / "data/probes.json").read_text(encoding="utf-8"))["identity"]
    ordinary = json.loads((ROOT / "data/probes_ordinary.json").read_text(encoding="utf-8"))
    return EvaluationData(
        Persona.load(ROOT / "configs/personas/elysia.json"),
        [talk for row in held for talk in iter_reply_examples(row)][:count],
        [talk for row in general for talk in iter_reply_examples(row)][:count],
        [row[-1].text for row in hers],
        [row[-1].text for row in others],
        [(probe["lang"], probe["text"]) for probe in probes[:: max(1, 100 // count)]],
        [probe["text"] for probe in ordinary[:count]],
    )


def models(
    tokenizer: Path, folder: Path, seed: int, count: int
) -> Iterator[tuple[str, Any, EvaluationData]]:
    """Each model of a seed by name, and what all of them are measured on; the base last."""
    rng = random.Random(seed)
    every, chat = rows("elysia.json", rng), by_reply(rows("chat.json", rng))
    unseen, spoken = [same[0] for same in chat[:count]], [t for same in chat[count:] for t in same]
    identity = [
        row for row in every if any(name in row[-1].text for name in ("爱莉希雅", "Elysia"))
    ]
    talk = by_reply([row for row in every if row not in identity])
    held = [same[0] for same in talk[: len(talk) // 3]]
    hers = [row for same in talk[len(talk) // 3 :] for row in same[:EACH]] + identity[:IDENTITY]
    wrong = [[Message("user", t.ask), Message("assistant", t.reply)]
             for row in self_cognition_rows("阿砚", "山风", 1000) for t in row]  # fmt: skip
    rng.shuffle(wrong)
    measured = material(count, hers, held, unseen, [same[0] for same in by_reply(wrong)])
    words = load_tokenizer(tokenizer)
    start = tiny.init_model(folder / str(seed), tokenizer=tokenizer, hidden_size=128, layers=3,
                            heads=4, seed=seed)  # fmt: skip
    base = learn(load_causal_lm(start, dtype="float32", device="cpu"), words, spoken, 2, 2e-3, seed)
    plans = {
        "her": (hers, FEW),
        "mixed": ([*hers, *rng.sample(spoken, len(hers))], FEW),
        "over": (hers, MANY),
        "other": (wrong[: len(hers)], FEW),
    }
    for name, (talks, epochs) in plans.items():
        yield name, learn(copy.deepcopy(base), words, talks, epochs, 1e-3, seed), measured
    yield "base", base, measured


def scorecard(name: str, model: Any, words: Any, measured: EvaluationData) -> dict[str, Any]:
    """One model's scorecard."""
    engine, stop = TransformersEngine(model, words), get_stop_words(TEMPLATE)
    sampling = Sampling(max_new_tokens=NEW, temperature=0)

    def say(talks: Talks) -> list[str]:
        return list(
            generate_batch(
                engine, [GenerationRequest(t, TEMPLATE, stop, sampling) for t in talks], batch=32
            )
        )

    reader = ReplyScorer(model, words, TEMPLATE, longest=1024)
    return score_model(name, reader, say, measured, max_new_tokens=NEW).to_dict()


def orders(seeds: Sequence[Sequence[dict[str, Any]]]) -> Iterator[str]:
    """A line an order: in how many seeds it held, and both values of each."""
    for meaning, measure, one, holds, other in ORDERS:
        pairs = []
        for cards in seeds:
            names = [card["label"] for card in cards]
            known = compute_gains(cards).get(measure) or [
                card["measures"][measure] for card in cards
            ]
            pairs.append((float(known[names.index(one)]), float(known[names.index(other)])))
        held = sum(holds(a, b) for a, b in pairs)
        shown = ", ".join(f"{a:.3g} to {b:.3g}" for a, b in pairs)
        yield f"{held} of {len(pairs)}  {meaning}: {measure}, {one} to {other}: {shown}"


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument("--count", type=int, default=40, help="replies measured (default: 40)")
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = [ROOT / "data" / name for name in ("chat.json", "elysia.json")]
        tokenizer = tiny.train_tokenizer(texts, 2048, folder / "tokenizer")
        words = load_tokenizer(tokenizer)
        for seed in range(args.seeds):
            cards = []
            for name, model, measured in models(tokenizer, folder, seed, args.count):
                cards.append(scorecard(name, model, words, measured))
                print(f"seed {seed}, {name}: {time.process_time():.0f} s of CPU in all", flush=True)
            print("\n".join(render_text(cards)), flush=True)
            found.append(cards)
    print("\n".join(orders(found)))


if __name__ == "__main__":
    main()
