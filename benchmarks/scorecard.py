"""`python benchmarks/scorecard.py`: does the scorecard order models as it must?

For each seed a tiny base is trained from nothing, and four models are trained from it: the character
(her), the same with general rows added (mixed), over-trained (the same rows, many more epochs), and
another character. No held-out reply is a training reply: then the right answer is no copy, and copying
shows. Prints each seed's scorecards and how often each order held. Asserts nothing.
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
from elysia.models.loading import load_causal_lm, load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = get_template("internlm2_chat")
MAX_NEW_TOKENS = 40
IDENTITY_ROWS = 80  # rows about who the character is, beside its other dialogue
ROWS_PER_REPLY = 2
EPOCHS, MANY_EPOCHS = 4, 30  # of a trained and of an over-trained model
Dialogues = Sequence[Sequence[Message]]

# (what must hold, measure, a model, above or below, another model)
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


def read_dialogues(name: str, rng: random.Random) -> list[list[Message]]:
    """A bundled file's dialogues, shuffled."""
    rows = json.loads((ROOT / "data" / name).read_text(encoding="utf-8"))
    dialogues = [xtuner(row) for row in rows]
    rng.shuffle(dialogues)
    return dialogues


def group_by_reply(dialogues: Dialogues) -> list[list[Sequence[Message]]]:
    """The one-turn dialogues with each reply, in the order in which replies first come."""
    groups: dict[str, list[Sequence[Message]]] = {}
    for dialogue in dialogues:
        if len(dialogue) == 2:
            groups.setdefault(dialogue[-1].text, []).append(dialogue)
    return list(groups.values())


def train(
    model: Any, tokenizer: Any, dialogues: Dialogues, epochs: int, lr: float, seed: int
) -> Any:
    """`model` after some epochs over `dialogues`, 16 rows per step."""
    encoded = [
        encode(render_training_pieces(dialogue, TEMPLATE), tokenizer) for dialogue in dialogues
    ]
    steps = epochs * -(-len(encoded) // 16)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
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
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


def build_data(
    count: int, hers: Dialogues, held: Dialogues, general: Dialogues, others: Dialogues
) -> EvaluationData:
    """What every model is measured on; `hers` is what three of them are trained on."""
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


def iter_models(
    tokenizer: Path, folder: Path, seed: int, count: int
) -> Iterator[tuple[str, Any, EvaluationData]]:
    """Each model of a seed by name, and what all of them are measured on; the base last."""
    rng = random.Random(seed)
    persona = read_dialogues("elysia.json", rng)
    chat = group_by_reply(read_dialogues("chat.json", rng))
    general_held = [group[0] for group in chat[:count]]
    general = [dialogue for group in chat[count:] for dialogue in group]
    identity = [d for d in persona if any(name in d[-1].text for name in ("爱莉希雅", "Elysia"))]
    talk = group_by_reply([d for d in persona if d not in identity])
    held = [group[0] for group in talk[: len(talk) // 3]]
    hers = [d for group in talk[len(talk) // 3 :] for d in group[:ROWS_PER_REPLY]]
    hers += identity[:IDENTITY_ROWS]
    other = [[Message("user", t.ask), Message("assistant", t.reply)]
             for row in self_cognition_rows("阿砚", "山风", 1000) for t in row]  # fmt: skip
    rng.shuffle(other)
    distractors = [group[0] for group in group_by_reply(other)]
    data = build_data(count, hers, held, general_held, distractors)
    encoder = load_tokenizer(tokenizer)
    start = tiny.init_model(folder / str(seed), tokenizer=tokenizer, hidden_size=128, layers=3,
                            heads=4, seed=seed)  # fmt: skip
    base = load_causal_lm(start, dtype="float32", device="cpu")
    base = train(base, encoder, general, 2, 2e-3, seed)
    plans = {
        "her": (hers, EPOCHS),
        "mixed": ([*hers, *rng.sample(general, len(hers))], EPOCHS),
        "over": (hers, MANY_EPOCHS),
        "other": (other[: len(hers)], EPOCHS),
    }
    for name, (dialogues, epochs) in plans.items():
        yield name, train(copy.deepcopy(base), encoder, dialogues, epochs, 1e-3, seed), data
    yield "base", base, data


def score(name: str, model: Any, tokenizer: Any, data: EvaluationData) -> dict[str, Any]:
    """The scorecard of one model."""
    engine, stop = TransformersEngine(model, tokenizer), get_stop_words(TEMPLATE)
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, temperature=0)

    def reply_to(dialogues: Dialogues) -> list[str]:
        requests = [GenerationRequest(d, TEMPLATE, stop, sampling) for d in dialogues]
        return engine.generate_batch(requests, batch=32)

    scorer = ReplyScorer(model, tokenizer, TEMPLATE, longest=1024)
    return score_model(name, scorer, reply_to, data, max_new_tokens=MAX_NEW_TOKENS).to_dict()


def orders(seeds: Sequence[Sequence[dict[str, Any]]]) -> Iterator[str]:
    """A line per order: in how many seeds it held, and both values in each."""
    for meaning, measure, model, holds, other in ORDERS:
        pairs = []
        for cards in seeds:
            names = [card["label"] for card in cards]
            known = compute_gains(cards).get(measure) or [
                card["measures"][measure] for card in cards
            ]
            pairs.append((float(known[names.index(model)]), float(known[names.index(other)])))
        held = sum(holds(a, b) for a, b in pairs)
        shown = ", ".join(f"{a:.3g} to {b:.3g}" for a, b in pairs)
        yield f"{held} of {len(pairs)}  {meaning}: {measure}, {model} to {other}: {shown}"


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument("--count", type=int, default=40, help="replies measured (default: 40)")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = [ROOT / "data" / name for name in ("chat.json", "elysia.json")]
        tokenizer = tiny.train_tokenizer(texts, 2048, folder / "tokenizer")
        loaded = load_tokenizer(tokenizer)
        for seed in range(args.seeds):
            cards = []
            for name, model, data in iter_models(tokenizer, folder, seed, args.count):
                cards.append(score(name, model, loaded, data))
                print(f"seed {seed}, {name}: {time.process_time():.0f} s of CPU in all", flush=True)
            print("\n".join(render_text(cards)), flush=True)
            results.append(cards)
    print("\n".join(orders(results)))


if __name__ == "__main__":
    main()
