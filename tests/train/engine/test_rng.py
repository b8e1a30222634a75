import random

import numpy as np
import torch

from elysia.train.engine import rng


def draw():
    return random.random(), np.random.randn(3).tolist(), torch.rand(3).tolist()


def test_every_generator_continues_where_it_was():
    np.random.randn()  # leaves a cached second gaussian, which must be restored too
    before = rng.get_rng_state()
    first = draw()
    rng.set_rng_state(before)
    assert draw() == first


def test_the_state_is_plain_enough_for_a_checkpoint_without_pickled_classes(tmp_path):
    torch.save(rng.get_rng_state(), tmp_path / "state.pth")
    before = torch.load(tmp_path / "state.pth", weights_only=True)
    first = draw()
    del first
    rng.set_rng_state(before)
    again = draw()
    rng.set_rng_state(before)
    assert draw() == again


def test_what_happens_untouched_leaves_no_trace():
    before = rng.get_rng_state()
    plain = draw()
    rng.set_rng_state(before)
    with rng.preserve_rng_state():
        draw()
    assert draw() == plain
