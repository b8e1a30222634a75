"""The trade-off of a run: the best measurement, and when to stop."""

from elysia.evaluate.tradeoff import USUAL, best_of, spelled, why_stop, worth

COURSE = [
    (0, {"heldout_bits": 5.0}),
    (10, {"voice_gain": 1.0, "general_lost": 0.1}),
    (20, {"voice_gain": 1.5, "general_lost": 0.2}),
    (30, {"voice_gain": 1.6, "general_lost": 0.9}),
    (40, {"voice_gain": 1.2, "general_lost": 1.2}),
]


def test_the_best_weighs_what_is_gained_against_what_is_lost():
    assert best_of(COURSE, USUAL) == 2
    assert best_of(COURSE, {"voice_gain": 1.0}) == 3
    assert best_of(COURSE[:1], USUAL) is None  # the untrained model is no result
    assert best_of([*COURSE[:2], (11, COURSE[1][1])], USUAL) == 1  # the first of equals


def test_a_run_goes_on_until_patience_is_over():
    assert why_stop(COURSE[:4], USUAL, 2) is None
    assert "best at step 20 (1.3)" in why_stop(COURSE, USUAL, 2)
    assert why_stop(COURSE, USUAL, 3) is None
    assert why_stop(COURSE, USUAL, 0) is None


def test_what_was_not_measured_counts_as_nothing():
    assert worth({"voice_gain": 2.0}, USUAL) == 2.0
    assert spelled({"voice_gain": 1.0, "leak": -0.5}) == "voice_gain - 0.5 leak"
