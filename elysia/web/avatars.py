"""Pictures of characters: the card's own, decoded within bounds and encoded anew, else a drawn portrait.

The portrait follows the card's hints, `extensions.elysia.portrait`: hair, eyes, back, dress (#rrggbb), style,
motif; what they do not say follows from a hash of the name. Nothing else of a card enters the drawing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from PIL import Image, ImageOps

from elysia.chat.characters import CharacterEntry
from elysia.core.persona import Persona

PICTURE_SIZE = 480  # pixels of a picture as it is shown
MAX_BYTES, MAX_PIXELS = 16 << 20, 40_000_000
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")


def make_thumbnail(content: bytes, side: int = PICTURE_SIZE) -> bytes | None:
    """A square JPEG of a picture's bytes, `side` pixels wide, with no metadata of the file; None for a
    picture that is damaged, too large, or in none of PICTURE_FORMATS.
    """
    if len(content) > MAX_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    return None
                opened.draft("RGB", (side, side))
                # A head is nearer to the top than to the middle.
                square = ImageOps.fit(opened.convert("RGB"), (side, side), centering=(0.5, 0.2))
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        return None
    out = io.BytesIO()
    square.save(out, "JPEG", quality=88)
    return out.getvalue()


def get_avatar_url(member: CharacterEntry, side: int = PICTURE_SIZE) -> str:
    """A data URL of the character's picture: the card's, or a drawn portrait."""
    content = member.picture
    thumbnail = make_thumbnail(content, side) if content else None
    if thumbnail is not None:
        return "data:image/jpeg;base64," + base64.b64encode(thumbnail).decode()
    drawn = draw_portrait(PortraitStyle.from_persona(member.persona))
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.encode()).decode()


COLOUR = re.compile(r"#[0-9a-fA-F]{6}\Z")
HAIR = ("#f3a6bf", "#6b4a3a", "#3c3f58", "#c98b4a", "#8fb3c9", "#7d6aa6", "#d9d2c5", "#4f7a6a")
EYES = ("#b0567e", "#5a7fa8", "#6a8f5b", "#8a5a3c", "#6d5aa0")
BACKS = ("#fde4ec", "#e3eefb", "#fdf0dc", "#e4f3e8", "#ece6f8", "#f7e9e2")
DRESSES = ("#ffffff", "#d98aa5", "#6f8fb5", "#7a9d7c", "#c9955f", "#8776ad")
STYLES = ("long", "bob", "short", "tail")
MOTIFS = ("flower", "bun", "quill", "wave", "star", "leaf")
# Colours of the motif in the hair; the others take theirs from the dress.
ORNAMENTS = {"flower": "#fff3f7", "bun": "#f2c078", "quill": "#f4f1ea", "wave": "#7fc4cf"}
# Where the motif is repeated behind the head: x, y, scale, angle.
BACKGROUND = ((36, 46, 0.5, -12), (206, 38, 0.62, 15), (214, 150, 0.42, -20), (26, 150, 0.4, 24))


# Elysia's portrait is described here and not on the card: the demo's tokenizer is trained on the card's
# text, and another word in it changes every figure of the demo.
BUNDLED_PORTRAITS: Mapping[str, Mapping[str, str]] = {
    "爱莉希雅": {
        "hair": "#f3a6bf", "eyes": "#b0567e", "back": "#fde4ec", "dress": "#ffffff",
        "style": "long", "motif": "flower",
    },
}  # fmt: skip


@dataclass(frozen=True)
class PortraitStyle:
    """What a portrait is drawn from: every value is one of the lists above, or a checked colour."""

    hair: str
    eyes: str
    back: str
    dress: str
    style: str
    motif: str

    @classmethod
    def from_persona(cls, persona: Persona) -> PortraitStyle:
        """From the card's hints, else from the name, so that the same name looks the same everywhere."""
        extension = persona.elysia_extensions.get("portrait")
        hints = (
            extension
            if isinstance(extension, Mapping)
            else BUNDLED_PORTRAITS.get(persona.name.strip(), {})
        )
        digest = hashlib.sha256(persona.name.strip().encode()).digest()

        def colour(name: str, choices: tuple[str, ...], byte: int) -> str:
            hint = hints.get(name)
            is_colour = isinstance(hint, str) and COLOUR.match(hint)
            return str(hint) if is_colour else choices[digest[byte] % len(choices)]

        def word(name: str, choices: tuple[str, ...], byte: int) -> str:
            hint = hints.get(name)
            return str(hint) if hint in choices else choices[digest[byte] % len(choices)]

        return cls(
            colour("hair", HAIR, 0), colour("eyes", EYES, 1), colour("back", BACKS, 2),
            colour("dress", DRESSES, 3), word("style", STYLES, 4), word("motif", MOTIFS, 5),
        )  # fmt: skip


def draw_portrait(look: PortraitStyle) -> str:
    """An SVG of 240 x 240: a bust before a soft background. The parts lie in `portrait.toml`."""
    parts = _load_parts()
    eyes_deep = mix_colours(look.eyes, "#20101c", 0.45)
    colours = {
        "hair": look.hair, "eyes": look.eyes, "back": look.back, "dress": look.dress,
        "dark": mix_colours(look.hair, "#2a1a24", 0.28),
        "light": mix_colours(look.hair, "#ffffff", 0.35),
        "far": mix_colours(look.back, "#ffffff", 0.55),
        "dress_shade": mix_colours(look.dress, "#402030", 0.16),
        "eyes_deep": eyes_deep, "eyes_line": mix_colours(eyes_deep, "#20101c", 0.5),
    }  # fmt: skip
    pattern = _draw_motif(look.motif, mix_colours(look.back, look.hair, 0.35))
    background = "".join(
        f'<g transform="translate({x} {y}) scale({scale}) rotate({angle})" opacity=".5">{pattern}</g>'
        for x, y, scale, angle in BACKGROUND
    )
    ornament = ORNAMENTS.get(look.motif) or mix_colours(look.dress, "#ffffff", 0.25)
    return _fill(
        parts["frame"],
        background=background,
        ornament=_draw_motif(look.motif, ornament),
        body=_fill(parts["body"], **colours),
        face=_fill(parts["face"], **colours),
        back_hair=_fill(parts["back_hair"][look.style], **colours),
        front_hair=_fill(parts["front_hair"][look.style], **colours),
        **colours,
    )


def _draw_motif(motif: str, colour: str) -> str:
    shade = mix_colours(colour, "#5a3040", 0.25)
    return _fill(_load_parts()["motif"][motif], colour=colour, shade=shade)


def _fill(template: str, **values: str) -> str:
    # The file has one element a line, for people; the line ends are no part of the drawing.
    return "".join(template.splitlines()).format(**values)


@cache
def _load_parts() -> dict[str, Any]:
    text = resources.files("elysia.web").joinpath("portrait.toml").read_text("utf-8")
    return tomllib.loads(text)


def mix_colours(first: str, second: str, share: float) -> str:
    """A colour between two: `share` of the second.

    >>> mix_colours("#000000", "#ffffff", 0.5)
    '#808080'
    """
    parts = zip(_parse_rgb(first), _parse_rgb(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in parts)


def _parse_rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
