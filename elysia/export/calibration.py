"""What a quantizer listens to: the conversations of the training, encoded as the training had them.

Knows nothing of quantizing.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError, ExportError
from elysia.core.run_card import RunCard
from elysia.core.templates import PromptTemplate
from elysia.data.convert import load_chosen
from elysia.data.samples import Sample
from elysia.data.tokenize import tokenize
from elysia.train.bundled import locate

LEAST = 16  # tokens: fewer tell nothing of a layer's inputs
SHORTEST = 4  # tokens that any conversation has: so many of them are more than enough


def token_rows(model: Path, tokenizer: Any, count: int, length: int) -> list[list[int]]:
    """At most `count` rows of `length` token ids (one shorter row when there is less).

    Whole conversations of the data that the run card names, in a fixed random order, one after
    another, cut where a row is full. Empty when no data is left; ExportError when what is left is
    less than LEAST tokens.
    """
    card = RunCard.read(model)
    samples = training_samples(card)
    if card is None or not samples or not card.template:
        return []
    random.Random(0).shuffle(samples)
    ids = tokenize(
        samples[: count * length // SHORTEST + 1],
        PromptTemplate.from_dict(card.template),
        tokenizer,
        system=card.system,
        max_length=2**31 - 1,
    ).ids.tolist()[: count * length]
    if len(ids) < LEAST:
        raise ExportError(
            f"The data of {model}'s run card is {len(ids)} tokens long: too little to calibrate with."
        )
    length = min(length, len(ids))
    return [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]


def training_samples(card: RunCard | None) -> list[Sample]:
    """Every conversation of the data that the card names, of preference pairs the chosen one."""
    found: list[Sample] = []
    for source in card.datasets if card else []:
        try:
            found += load_chosen(locate(source["path"]), source["format"])
        except DataError:
            continue  # moved since the training
    return found
