"""What a persona costs while it is learned: one number from the measures of a model in training, the
best of a run's measurements, and whether it is time to stop.

Knows numbers alone, and nothing of who took them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# What elysia/evaluate/scorecard.py measures, in the order in which it is told.
MEASURE_NAMES = (
    "voice_gain", "general_lost", "forgetting", "heldout_perplexity", "heldout_bits", "next_line",
    "identity", "leak", "copy_longest", "copy_rate", "general_perplexity", "general_bits",
    "general_choice", "choice_lost",
)  # fmt: skip
# The voice and the name, against what they cost: two in bits per character, two are shares.
DEFAULT_WEIGHTS = {"voice_gain": 1.0, "identity": 1.0, "leak": -1.0, "general_lost": -1.0}

Measures = Mapping[str, float]
History = Sequence[tuple[int, Measures]]  # (step, measures), in order


def weighted_score(measures: Measures, weights: Mapping[str, float]) -> float:
    """The trade-off: each measure times its weight, summed; what was not measured counts as 0.

    >>> weighted_score({"voice_gain": 1.5, "identity": 0.5, "general_lost": 0.5}, DEFAULT_WEIGHTS)
    1.5
    """
    return sum(weight * measures.get(name, 0.0) for name, weight in weights.items())


def find_best(history: History, weights: Mapping[str, float]) -> int | None:
    """The place of the best measurement (the first of equals), the untrained model (step 0) left
    out; None where there is no other."""
    trained = [place for place, (step, _) in enumerate(history) if step]
    return max(trained, key=lambda place: weighted_score(history[place][1], weights), default=None)


def explain_stop(history: History, weights: Mapping[str, float], patience: int) -> str | None:
    """A sentence once `patience` measurements since the best were no better, else None.

    >>> explain_stop([(0, {}), (10, {"leak": 0.1}), (20, {"leak": 0.5})], {"leak": -1}, 1)
    'the trade-off (- leak) was best at step 10 (-0.1), and no later one was better (-0.5 at step 20)'
    """
    best = find_best(history, weights)
    if not patience or best is None or len(history) - 1 - best < patience:
        return None
    (step, measures), (last, latest) = history[best], history[-1]
    return (
        f"the trade-off ({format_weights(weights)}) was best at step {step} ({weighted_score(measures, weights):.4g}), "
        f"and no later one was better ({weighted_score(latest, weights):.4g} at step {last})"
    )


def format_weights(weights: Mapping[str, float]) -> str:
    """Weights as a sum.

    >>> format_weights({"identity": 2.0, "leak": -1})
    '2 identity - leak'
    """
    text = ""
    for name, weight in weights.items():
        factor = "" if abs(weight) == 1 else f"{abs(weight):g} "
        text += f" {'-' if weight < 0 else '+'} {factor}{name}"
    return text.removeprefix(" + ").strip()
