"""Portraits: the same name looks the same, hints are checked; strangers' pictures are made anew."""

from __future__ import annotations

import base64
import io
import xml.dom.minidom
from pathlib import Path

import pytest
from PIL import Image

from elysia.core.persona import Persona
from elysia.web import avatars
from elysia.web.avatars import (
    BUNDLED_PORTRAITS,
    MOTIFS,
    STYLES,
    PortraitStyle,
    draw_portrait,
    make_thumbnail,
)

PERSONAS = sorted((Path(__file__).parents[2] / "configs" / "personas").glob("*.json"))


@pytest.mark.parametrize("file", PERSONAS, ids=lambda file: file.stem)
def test_every_bundled_character_has_a_whole_look(file):
    persona = Persona.load(file)
    hints = persona.elysia_extensions.get("portrait") or BUNDLED_PORTRAITS[persona.name]
    assert PortraitStyle.from_persona(persona) == PortraitStyle(**hints)


def test_a_name_looks_the_same_everywhere_and_names_differ():
    looks = {
        PortraitStyle.from_persona(Persona(name))
        for name in ("Mira", "乌鸦", "Seraphina", "Bob", "小满")
    }
    assert len(looks) == 5 and PortraitStyle.from_persona(Persona(" Mira ")) in looks


def test_a_hint_that_is_none_of_ours_does_not_reach_the_drawing():
    hints = {"hair": '#ffffff"/><script>', "style": "<b>", "motif": ["star"], "eyes": "#00ff00"}
    look = PortraitStyle.from_persona(Persona("Bob", extensions={"elysia": {"portrait": hints}}))
    assert look.eyes == "#00ff00" and look.style in STYLES and look.motif in MOTIFS
    assert "script" not in draw_portrait(look)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("motif", MOTIFS)
def test_every_portrait_is_well_formed(style, motif):
    drawn = draw_portrait(PortraitStyle("#f3a6bf", "#b0567e", "#fde4ec", "#ffffff", style, motif))
    assert xml.dom.minidom.parseString(drawn).documentElement.tagName == "svg"


def image(kind="PNG", size=(60, 90), **saved):
    out = io.BytesIO()
    Image.new("RGB", size, "#cc3366").save(out, kind, **saved)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_made_anew_square_and_without_what_it_carried(kind):
    exif = Image.Exif()
    exif[270] = "where I live"
    thumbnail = make_thumbnail(image(kind, exif=exif), 48)
    with Image.open(io.BytesIO(thumbnail)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (48, 48))
    assert b"where I live" not in thumbnail


@pytest.mark.parametrize(
    "content",
    [b"", b"<svg onload='x'/>", image()[:60], image("GIF"), image("BMP"), b"\x89PNG\r\n\x1a\n" * 9],
)
def test_what_is_no_picture_of_a_kind_we_take_is_none(content):
    assert make_thumbnail(content) is None


def test_a_picture_beyond_bounds_is_none(monkeypatch):
    monkeypatch.setattr(avatars, "MAX_PIXELS", 1000)
    assert make_thumbnail(image(size=(100, 100))) is None
    monkeypatch.setattr(avatars, "MAX_BYTES", 50)
    assert make_thumbnail(image(size=(10, 10))) is None


class FakeCharacter:
    def __init__(self, picture):
        self.picture, self.persona = picture, Persona("Mira")


def test_a_guest_without_a_picture_that_can_be_shown_is_drawn():
    for picture in (None, b"no picture"):
        head, _, body = avatars.get_avatar_url(FakeCharacter(picture)).partition(",")
        assert head == "data:image/svg+xml;base64" and base64.b64decode(body).startswith(b"<svg")
    assert avatars.get_avatar_url(FakeCharacter(image())).startswith("data:image/jpeg;base64,")
