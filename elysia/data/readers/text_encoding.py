"""Detect which encoding a text file is in."""

from __future__ import annotations

import re
from pathlib import Path

# U+FFFD and the private use area: a wrong decoding of East Asian text produces these.
_STRANGE = re.compile("[\ufffd\ue000-\uf8ff]")


def detect_encoding(path: Path, sample: int = 1 << 20) -> str:
    """`utf-8-sig` (which reads plain UTF-8, too), `utf-16`, `utf-16-le`, `utf-16-be`, `gb18030` or
    `big5`, from the byte order mark, from zero bytes, or by which of them decodes the first `sample`
    bytes.

    UTF-8 with a few bad bytes is still UTF-8: damaged text does not decode any better as GBK.
    """
    with path.open("rb") as file:
        return detect_encoding_of_bytes(file.read(sample), whole=not file.read(1))


def detect_encoding_of_bytes(raw: bytes, *, whole: bool = True) -> str:
    """The same for bytes; `whole` is False when they are only the beginning of a text."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    zeros = raw[:4096].count(0)
    if zeros * 4 > len(raw[:4096]) or (zeros and not _decodes(raw[:4096], "utf-8")):
        odd, even = raw[1:4096:2].count(0), raw[:4096:2].count(0)
        return "utf-16-le" if odd > even else "utf-16-be"
    bad = len(re.findall("[\udc80-\udcff]+", raw.decode("utf-8", "surrogateescape")))
    foreign = sum(byte > 127 for byte in raw[:20_000])
    if bad <= (0 if whole else 1) or bad * 8 < foreign:
        return "utf-8-sig"
    # GB18030 decodes nearly anything, and turns Big5's punctuation into characters nobody uses.
    texts = {encoding: raw.decode(encoding, "replace") for encoding in ("gb18030", "big5")}
    best = min(texts, key=lambda encoding: len(_STRANGE.findall(texts[encoding])))
    return best if texts[best].count("\ufffd") <= (0 if whole else 2) else "utf-8-sig"


def _decodes(raw: bytes, encoding: str) -> bool:
    """Whether bytes, whose last character may be cut in two, are valid in an encoding."""
    return raw.decode(encoding, "replace").count("\ufffd") <= 1
