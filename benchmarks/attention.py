"""Causal attention on a CPU: ours in blocks (`train/kernels/cpu_attention.py`) against torch's kernel.

    OMP_NUM_THREADS=1 python benchmarks/attention.py

Both alternate in one run; shown are the least time of each, and the largest relative error of values and
gradients against float64. Asserts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from elysia.train.kernels import cpu_attention

TURNS = 12
SHAPES = [
    (8, 4, 32),
    (16, 8, 128),
]  # heads, key heads, width: of the benchmark models, and of InternLM2-1.8B
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def attend_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The kernel that transformers calls."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def attend_ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """In blocks."""
    return cpu_attention.attend(q, k, v, None)


def run_with_gradients(attend: Attend, tensors: list[Tensor], out_grad: Tensor) -> list[Tensor]:
    """Values, and gradients of query, key and value."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    out = attend(*leaves)
    out.backward(out_grad)
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
                print_row(heads, shared, width, length, dtype)


def print_row(heads: int, shared: int, width: int, length: int, dtype: torch.dtype) -> None:
    """One line of the table."""
    inputs = [torch.randn(1, length, n, width, dtype=dtype) for n in (heads, shared, shared, heads)]
    *tensors, out_grad = (x.transpose(1, 2) for x in inputs)
    exact = run_with_gradients(attend_torch, [x.double() for x in tensors], out_grad.double())
    errors, least = [], [float("inf")] * 2
    for attend in (attend_torch, attend_ours):
        actual = run_with_gradients(attend, tensors, out_grad)
        errors.append(
            max(
                float((a.double() - b).norm() / b.norm())
                for a, b in zip(actual, exact, strict=True)
            )
        )
    for _ in range(TURNS):
        for number, attend in enumerate((attend_torch, attend_ours)):
            start = time.perf_counter()
            run_with_gradients(attend, tensors, out_grad)
            least[number] = min(least[number], 1e3 * (time.perf_counter() - start))
    print(
        f"| {heads} ({shared}), {width} | {length} | {str(dtype)[6:]} | {least[0]:.2f} | {least[1]:.2f} | "
        f"{least[1] / least[0]:.2f} | {errors[0]:.1e} | {errors[1]:.1e} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
