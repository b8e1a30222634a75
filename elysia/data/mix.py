"""How often the rows of each source are seen in an epoch: `repeat`, or a `weight` beside others'.

Knows numbers of rows and nothing of the rows themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from elysia.core.errors import DataError


def repeats(sources: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> list[float]:
    """How often each source is seen: 2 is every row twice, 0.5 a half of them once.

    Sources without a weight say so by `repeat`. The first source with a weight is seen by its
    `repeat`, and each further one as many rows as its weight is to the first's. DataError for a
    weight that is not above 0, or that stands beside a `repeat` of its own.

    >>> repeats([{"path": "her", "weight": 0.8}, {"path": "general", "weight": 0.2}], [400, 1000])
    [1, 0.1]
    """
    found: list[float] = [source.get("repeat", 1) for source in sources]
    first = -1
    for place, source in enumerate(sources):
        weight = source.get("weight")
        if weight is None:
            continue
        if not isinstance(weight, int | float) or isinstance(weight, bool) or weight <= 0:
            raise DataError(
                f"data_path: weight of {source['path']} must be above 0, not {weight!r}."
            )
        if first < 0:
            first = place
            continue
        if found[place] != 1:
            raise DataError(
                f"data_path: {source['path']} has a weight and a repeat; only the first source with "
                "a weight may have both."
            )
        seen = found[first] * rows[first] * weight / sources[first]["weight"]
        found[place] = seen / max(rows[place], 1)
    return found
