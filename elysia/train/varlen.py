"""torch's flash attention over samples of any length, in one call for a whole pack, on GPUs.

It is tried out before it is used: where it is absent, fails, or gives other numbers than attention
sample by sample, that is what is used instead. Knows nothing of models.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# (q, k, v of (t, heads, d), lengths, scale, window) -> (t, heads, d)
Attention = Callable[[Tensor, Tensor, Tensor, list[int], float | None, int | None], Tensor]
TRIED = (37, 64, 1, 90)  # lengths of samples, more and fewer than a block of the kernel's


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: list[int],
    scale: float | None,
    window: int | None,
) -> Tensor:
    """Causal attention within each of `segments`: (t, heads, d), keys with as many heads or fewer.

    `window`: how many positions a row sees, itself among them; None is all before it.
    """
    from torch.nn.attention.varlen import varlen_attn

    longest = max(segments)
    bounds = _bounds(tuple(segments), query.device)
    # (left, right): how many before and after a row it sees, -1 for all.
    seen = (-1 if window is None else window - 1, 0)
    out: Any = varlen_attn(
        query, key, value, bounds, bounds, longest, longest,
        scale=scale, window_size=seen, enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return out  # type: ignore[no-any-return]


@lru_cache(maxsize=64)  # every layer of a step asks for the same
def _bounds(segments: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each sample begins, and the end: int32."""
    return torch.tensor([0, *itertools.accumulate(segments)], dtype=torch.int32, device=device)


@lru_cache(maxsize=16)
def usable(
    device: torch.device,
    dtype: torch.dtype,
    heads: tuple[int, int],
    dim: int,
    window: int | None,
    reference: Attention,
) -> bool:
    """Whether `attend` gives on this device what `reference` does, and the same gradients.

    heads: of queries, and of keys and values. The answer is kept; randomness is left as it was.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return False
    draw = torch.Generator().manual_seed(0)
    shapes = [(sum(TRIED), count, dim) for count in (heads[0], heads[1], heads[1], heads[0])]
    q, k, v, slope = (torch.randn(s, generator=draw).to(device, dtype) for s in shapes)
    try:
        with torch.autocast(device.type, enabled=False):
            found, wanted = (_tried(f, (q, k, v), slope, window) for f in (attend, reference))
    except (ImportError, RuntimeError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        log.info(
            "Attention goes sample by sample: torch's varlen kernel does not run (%s).", reason
        )
        return False
    for a, b in zip(found, wanted, strict=True):
        off = float((a.float() - b.float()).abs().max() / b.float().abs().max())
        if not off < 0.03:  # bfloat16 has 8 bits; nan is refused, too
            log.warning(
                "Attention goes sample by sample: torch's varlen kernel is %.2g off on this device.",
                off,
            )
            return False
    return True


def _tried(
    function: Attention, inputs: tuple[Tensor, ...], slope: Tensor, window: int | None
) -> list[Tensor]:
    """What `function` gives, and its gradients."""
    q, k, v = (x.detach().clone().requires_grad_() for x in inputs)
    with torch.enable_grad():
        out = function(q, k, v, list(TRIED), None, window)
        return [out.detach(), *torch.autograd.grad(out, (q, k, v), slope)]
