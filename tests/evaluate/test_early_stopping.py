"""The trade-off of a run: the best measurement, and when to stop."""

from elysia.evaluate.early_stopping import (
    DEFAULT_WEIGHTS,
    explain_stop,
    find_best,
    format_weights,
    weighted_score,
)

COURSE = [
    (0, {"heldout_bits": 5.0}),
    (10, {"voice_gain": 1.0, "general_lost": 0.1}),
    (20, {"voice_gain": 1.5, "general_lost": 0.2}),
    (30, {"voice_gain": 1.6, "general_lost": 0.9}),
    (40, {"voice_gain": 1.2, "general_lost": 1.2}),
]


def test_the_best_weighs_what_is_gained_against_what_is_lost():
    assert find_best(COURSE, DEFAULT_WEIGHTS) == 2
    assert find_best(COURSE, {"voice_gain": 1.0}) == 3
    assert find_best(COURSE[:1], DEFAULT_WEIGHTS) is None  # the untrained model is no result
    assert find_best([*COURSE[:2], (11, COURSE[1][1])], DEFAULT_WEIGHTS) == 1  # the first of equals


def test_a_run_goes_on_until_patience_is_over():
    assert explain_stop(COURSE[:4], DEFAULT_WEIGHTS, 2) is None
    assert "best at step 20 (1.3)" in explain_stop(COURSE, DEFAULT_WEIGHTS, 2)
    assert explain_stop(COURSE, DEFAULT_WEIGHTS, 3) is None
    assert explain_stop(COURSE, DEFAULT_WEIGHTS, 0) is None


def test_what_was_not_measured_counts_as_nothing():
    assert weighted_score({"voice_gain": 2.0}, DEFAULT_WEIGHTS) == 2.0
    assert format_weights({"voice_gain": 1.0, "leak": -0.5}) == "voice_gain - 0.5 leak"
