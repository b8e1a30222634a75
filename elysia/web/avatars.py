"""Pictures of characters: the card's own, decoded within bounds and encoded anew, else a drawn portrait.

The portrait follows the card's hints, `extensions.elysia.portrait`: hair, eyes, back, dress (colours #rrggbb),
style, motif; what they do not say follows from a hash of the name. Nothing else of a card enters the drawing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

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
    """An SVG of 240 x 240: a bust before a soft background."""
    dark, light = mix_colours(look.hair, "#2a1a24", 0.28), mix_colours(look.hair, "#ffffff", 0.35)
    far = mix_colours(look.back, "#ffffff", 0.55)
    ground = "".join(
        f'<g transform="translate({x} {y}) scale({s}) rotate({r})" opacity=".5">'
        f"{_draw_motif(look.motif, mix_colours(look.back, look.hair, 0.35))}</g>"
        for x, y, s, r in (
            (36, 46, 0.5, -12),
            (206, 38, 0.62, 15),
            (214, 150, 0.42, -20),
            (26, 150, 0.4, 24),
        )
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 240 240" width="240" height="240">'
        f'<defs><linearGradient id="g" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{far}"/>'
        f'<stop offset="1" stop-color="{look.back}"/></linearGradient>'
        f'<linearGradient id="h" gradientUnits="userSpaceOnUse" x1="0" y1="34" x2="0" y2="240"><stop offset="0" stop-color="{light}"/>'
        f'<stop offset=".45" stop-color="{look.hair}"/><stop offset="1" stop-color="{dark}"/></linearGradient></defs>'
        f'<rect width="240" height="240" fill="url(#g)"/>{ground}'
        f"{_draw_back_hair(look.style)}{_draw_body(look.dress)}{_draw_face(look.eyes)}"
        f"{_draw_front_hair(look.style, dark)}"
        f'<g transform="translate(166 84) scale(.8) rotate(14)">{_draw_motif(look.motif, _get_ornament_colour(look))}</g></svg>'
    )


def mix_colours(first: str, second: str, share: float) -> str:
    """A colour between two: `share` of the second.

    >>> mix_colours("#000000", "#ffffff", 0.5)
    '#808080'
    """
    parts = zip(_parse_rgb(first), _parse_rgb(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in parts)


def _parse_rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _get_ornament_colour(look: PortraitStyle) -> str:
    return {"flower": "#fff3f7", "bun": "#f2c078", "quill": "#f4f1ea", "wave": "#7fc4cf"}.get(
        look.motif, mix_colours(look.dress, "#ffffff", 0.25)
    )


def _draw_body(dress: str) -> str:
    shade = mix_colours(dress, "#402030", 0.16)
    return (
        '<path d="M106 168h28v34q-14 14-28 0z" fill="#f5cdbb"/>'
        f'<path d="M44 240q4-42 56-50q20 22 40 0q52 8 56 50z" fill="{dress}"/>'
        f'<path d="M100 190q20 22 40 0l8 2q-26 36-56 0z" fill="{shade}"/>'
        f'<circle cx="120" cy="214" r="4" fill="{shade}"/>'
    )


def _draw_face(eyes: str) -> str:
    deep = mix_colours(eyes, "#20101c", 0.45)
    eye = (
        f'<path d="M-13-9q13-11 26-1" stroke="{mix_colours(deep, "#20101c", 0.5)}" stroke-width="3.4" fill="none" '
        f'stroke-linecap="round"/><ellipse cy="3" rx="8.6" ry="11" fill="{deep}"/>'
        f'<ellipse cy="6" rx="7" ry="7.6" fill="{eyes}"/><circle cx="-2.8" cy="-1.5" r="3.3" fill="#fff"/>'
        '<circle cx="3.2" cy="8" r="1.7" fill="#fff" opacity=".8"/>'
    )
    return (
        '<path d="M70 118q0-58 50-58t50 58q0 34-22 50q-15 12-28 12t-28-12q-22-16-22-50z" fill="#fde3d6"/>'
        '<ellipse cx="88" cy="152" rx="10" ry="5.5" fill="#f7a8a8" opacity=".55"/>'
        '<ellipse cx="152" cy="152" rx="10" ry="5.5" fill="#f7a8a8" opacity=".55"/>'
        f'<g transform="translate(96 132)">{eye}</g><g transform="translate(144 132) scale(-1 1)">{eye}</g>'
        '<path d="M111 161q9 8 18 0" stroke="#b4574f" stroke-width="2.6" fill="none" stroke-linecap="round"/>'
    )


def _draw_back_hair(style: str) -> str:
    shape = {
        "long": "M120 34C58 34 44 86 46 132C48 178 34 206 42 240H198C206 206 192 178 194 132C196 86 182 34 120 34z",
        "bob": "M120 34C60 34 48 84 48 126C48 168 56 186 78 190H162C184 186 192 168 192 126C192 84 180 34 120 34z",
        "short": "M120 36C66 36 54 84 56 120C58 142 62 156 74 160H166C178 156 182 142 184 120C186 84 174 36 120 36z",
        "tail": "M120 34C62 34 50 84 52 122C54 150 60 166 74 168H164C176 190 206 196 210 232C226 196 214 150 190 132"
        "C192 84 178 34 120 34z",
    }[style]
    return f'<path d="{shape}" fill="url(#h)"/>'


def _draw_front_hair(style: str, dark: str) -> str:
    fringe = {
        "long": "M66 132C60 78 84 52 122 50C160 52 180 80 174 132C170 112 160 100 150 92C152 102 150 110 146 114"
        "C140 102 130 94 118 90C120 100 116 108 110 114C106 104 104 100 102 94C84 100 72 114 66 132z",
        "bob": "M66 128C60 76 86 52 120 50C156 52 180 78 174 128C172 116 168 108 162 104Q120 112 78 104C72 108 68 116 66 128z",
        "short": "M66 120C62 74 88 52 122 48C150 50 178 66 174 116C168 104 160 100 150 98C136 98 120 94 108 84"
        "C104 94 92 100 82 102C74 106 68 112 66 120z",
        "tail": "M66 130C60 78 86 52 120 50C158 52 180 80 174 130C168 108 150 92 124 84C112 102 84 104 66 130z",
    }[style]
    locks = {
        "long": '<path d="M66 120q-8 54 6 80q-16-34-14-80z M174 120q8 54-6 80q16-34 14-80z" fill="url(#h)"/>',
        "bob": '<path d="M66 116q-8 40 8 66q-22-18-20-62z M174 116q8 40-8 66q22-18 20-62z" fill="url(#h)"/>',
    }.get(style, "")
    shine = '<path d="M88 72q30-18 62 0" stroke="#fff" stroke-width="5" opacity=".35" fill="none" stroke-linecap="round"/>'
    edge = f'<path d="{fringe}" fill="url(#h)" stroke="{dark}" stroke-opacity=".25" stroke-width="1.5"/>'
    return locks + edge + shine


def _draw_motif(motif: str, colour: str) -> str:
    shade = mix_colours(colour, "#5a3040", 0.25)
    if motif == "flower":
        petals = "".join(
            f'<ellipse cx="{14 * math.sin(math.tau * n / 5):.1f}" cy="{-14 * math.cos(math.tau * n / 5):.1f}" '
            f'rx="10" ry="12" transform="rotate({72 * n} {14 * math.sin(math.tau * n / 5):.1f} '
            f'{-14 * math.cos(math.tau * n / 5):.1f})" fill="{colour}" stroke="{shade}" stroke-width="1"/>'
            for n in range(5)
        )
        return petals + '<circle r="7" fill="#f6c560"/>'
    return {
        "bun": f'<path d="M-22 8Q-22-18 0-18T22 8Q22 14 0 14T-22 8z" fill="{colour}" stroke="{shade}" stroke-width="1.5"/>'
        f'<path d="M-10-10q4 8 0 14M0-13q4 9 0 16M10-10q4 8 0 14" stroke="{shade}" stroke-width="2.4" fill="none" stroke-linecap="round"/>',
        "quill": f'<path d="M-16 22Q-14-12 18-24Q20 4-10 16z" fill="{colour}" stroke="{shade}" stroke-width="1.5"/>'
        f'<path d="M-20 28L8-12" stroke="{shade}" stroke-width="2" stroke-linecap="round"/>',
        "wave": f'<path d="M-24 2q8-14 16 0t16 0t16 0" stroke="{colour}" stroke-width="6" fill="none" stroke-linecap="round"/>'
        f'<path d="M-18 14q8-12 16 0t16 0" stroke="{shade}" stroke-width="4" fill="none" stroke-linecap="round" opacity=".7"/>',
        "star": f'<path d="M0-22L6-6L22-4L9 6L14 22L0 13L-14 22L-9 6L-22-4L-6-6z" fill="{colour}" stroke="{shade}" stroke-width="1.2" '
        'stroke-linejoin="round"/>',
        "leaf": f'<path d="M-18 16Q-20-16 18-20Q20 14-18 16z" fill="{colour}" stroke="{shade}" stroke-width="1.5"/>'
        f'<path d="M-16 14L10-12" stroke="{shade}" stroke-width="2"/>',
    }[motif]
