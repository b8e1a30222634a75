"""Whether two runs are in the same state, to the bit."""

from __future__ import annotations

from typing import Any

import torch

# What of a checkpoint steers the rest of a run.
STATE = ("state_dict", "optimizer", "param_schedulers", "rng", "progress")


def same(first: Any, second: Any) -> bool:
    """Equality of everything that steers a run, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)
