"""Pictures to show of characters: the card's own, decoded within bounds and made anew, else a portrait.

Knows nothing of pages.
"""

from __future__ import annotations

import base64
import io
import warnings

from PIL import Image, ImageOps

from elysia.chat.cast import Member
from elysia.web.portrait import Look, portrait

SIDE = 480  # pixels of a picture as it is shown
MOST_BYTES, MOST_PIXELS = 16 << 20, 40_000_000
KINDS = ("PNG", "JPEG", "WEBP")


def shown_picture(content: bytes, side: int = SIDE) -> bytes | None:
    """A square JPEG of a picture's bytes, nothing of the file kept; None when it is none of KINDS,
    damaged, or too large.
    """
    if len(content) > MOST_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=KINDS) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    return None
                opened.draft("RGB", (side, side))
                # The head is nearer to the top than the middle is.
                made = ImageOps.fit(opened.convert("RGB"), (side, side), centering=(0.5, 0.2))
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        return None
    out = io.BytesIO()
    made.save(out, "JPEG", quality=88)
    return out.getvalue()


def picture_of(member: Member, side: int = SIDE) -> str:
    """A data URL of the character's picture: her card's, or a drawn portrait."""
    content = member.picture
    shown = shown_picture(content, side) if content else None
    if shown is not None:
        return "data:image/jpeg;base64," + base64.b64encode(shown).decode()
    drawn = portrait(Look.of(member.persona))
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.encode()).decode()
