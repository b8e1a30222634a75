"""Causal attention on a CPU, both ways: ours in blocks (`train/blockwise.py`) beside torch's kernel.

    OMP_NUM_THREADS=1 python benchmarks/attention.py

By turns in one run; the least time of each, and the largest relative error of values and gradients against
float64. Asserts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from elysia.train.kernels import cpu_attention

TURNS = 12
SHAPES = [(8, 4, 32), (16, 8, 128)]  # heads, key heads, width: the bench models', InternLM2-1.8B's
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The kernel that transformers calls."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """In blocks."""
    return cpu_attention.attend(q, k, v, None)


def both_ways(attend: Attend, tensors: list[Tensor], slope: Tensor) -> list[Tensor]:
    """Values, and gradients of query, key and value."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    out = attend(*leaves)
    out.backward(slope)
    return [out.detach(), *(x.grad for x in leaves if x.grad is not None)]


def main() -> None:
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}")
    print(
        "| heads, width | tokens | dtype | torch's, ms | ours, ms | ratio | torch's error | ours |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for heads, shared, width in SHAPES:
        for length in (64, 256, 512, 1024, 2048):
            for dtype in (torch.float32, torch.bfloat16):
                row(heads, shared, width, length, dtype)


def row(heads: int, shared: int, width: int, length: int, dtype: torch.dtype) -> None:
    """One line of the table."""
    inputs = [torch.randn(1, length, n, width, dtype=dtype) for n in (heads, shared, shared, heads)]
    *tensors, slope = (x.transpose(1, 2) for x in inputs)
    exact = both_ways(torchs, [x.double() for x in tensors], slope.double())
    errors, least = [], [float("inf")] * 2
    for attend in (torchs, ours):
        actual = both_ways(attend, tensors, slope)
        errors.append(
            max(
                float((a.double() - b).norm() / b.norm())
                for a, b in zip(actual, exact, strict=True)
            )
        )
    for _ in range(TURNS):
        for number, attend in enumerate((torchs, ours)):
            begun = time.perf_counter()
            both_ways(attend, tensors, slope)
            least[number] = min(least[number], 1e3 * (time.perf_counter() - begun))
    print(
        f"| {heads} ({shared}), {width} | {length} | {str(dtype)[6:]} | {least[0]:.2f} | {least[1]:.2f} | "
        f"{least[1] / least[0]:.2f} | {errors[0]:.1e} | {errors[1]:.1e} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
