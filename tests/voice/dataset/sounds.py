"""Sounds made by numbers."""

import numpy as np


def speechlike(seconds, rate, level=0.1, seed=0):
    """Noise that swells four times a second, from -1 to 1."""
    random = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    noise = np.convolve(random.standard_normal(len(t)), np.ones(8) / 8, "same")
    return (level * noise * (1.2 + np.sin(2 * np.pi * 4 * t))).astype(np.float32)
