"""How many frames VITS's decoder looks to either side, from its config. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

EDGE = 3  # samples that the first and the last convolution (7 taps) look to either side


def reaches(config: Mapping[str, Any]) -> list[int]:
    """Frames to either side that the samples of a frame depend on: [of latents, and of what each
    upsampling gives], as VitsConfig names the sizes.

    >>> reaches({"upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4],
    ...          "resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5]] * 3})
    [14, 10, 2, 1, 1]
    """
    blocks = max(
        sum(taps // 2 * (step + 1) for step in steps)
        for taps, steps in zip(
            config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True
        )
    )
    rates = list(config["upsample_rates"])
    need, found = EDGE, []
    for i in reversed(range(len(rates))):
        need += blocks
        found.append(math.ceil(need / math.prod(rates[: i + 1])))
        taps = config["upsample_kernel_sizes"][i]
        need = math.ceil((need + taps - 1 - (taps - rates[i]) // 2) / rates[i])
    return [need + EDGE, *reversed(found)]
