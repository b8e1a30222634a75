"""When to stop learning a persona: one number from a model's measures, the best of a run's
measurements, and whether it is time to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# What `scorecard.quick_eval` and `compare_to_base` measure, in the order in which it is reported.
MEASURE_NAMES = (
    "voice_gain", "general_lost", "forgetting", "heldout_perplexity", "heldout_bits", "next_line",
    "identity", "leak", "copy_longest", "copy_rate", "general_perplexity", "general_bits",
    "general_choice", "choice_lost",
)  # fmt: skip
# The voice and the name, against what they cost. Two are in bits per character, two are shares.
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
    """Index of the best measurement, the first among equals; None where there is none.

    The untrained model (step 0) does not count.
    """
    trained = [index for index, (step, _) in enumerate(history) if step]
    return max(trained, key=lambda i: weighted_score(history[i][1], weights), default=None)


def explain_stop(history: History, weights: Mapping[str, float], patience: int) -> str | None:
    """Why to stop, once `patience` measurements in a row were no better than the best; else None.

    The text goes into the log and the run card, which are English.

    >>> explain_stop([(0, {}), (10, {"leak": 0.1}), (20, {"leak": 0.5})], {"leak": -1}, 1)
    'the trade-off (- leak) was best at step 10 (-0.1), and no later one was better (-0.5 at step 20)'
    """
    best = find_best(history, weights)
    if not patience or best is None or len(history) - 1 - best < patience:
        return None
    (step, measures), (last, latest) = history[best], history[-1]
    score, last_score = weighted_score(measures, weights), weighted_score(latest, weights)
    return (
        f"the trade-off ({format_weights(weights)}) was best at step {step} ({score:.4g}), "
        f"and no later one was better ({last_score:.4g} at step {last})"
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
