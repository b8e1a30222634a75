"""`elysia card show`, `card convert` and `card check`: character cards and lorebooks as files.

Texts of a card come from strangers, so their control characters are spelled out.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.cli.output import build_parser, say, warn
from elysia.cli.terminal import escape_unprintable
from elysia.core.errors import PersonaError, UsageError

if TYPE_CHECKING:
    from elysia.core.card_file import CharacterCard
    from elysia.core.i18n import Text
    from elysia.core.lorebook import LorebookEntry

SHOWN_TEXTS = (
    "description",
    "personality",
    "scenario",
    "system_prompt",
    "post_history_instructions",
)
SPEC_HELP = "default: the card's own; a lorebook or world file becomes v3 or world"


def show_parser() -> ArgumentParser:
    """The parser of `elysia card show`."""
    parser = build_parser(
        "card show", "FILE", "Show the character on a card, with its macros as written.", show
    )
    parser.add_argument("file", metavar="FILE", help="a card: JSON, PNG or CHARX")
    parser.add_argument("--json", action="store_true", help="print the card's JSON as it is")
    return parser


def convert_parser() -> ArgumentParser:
    """The parser of `elysia card convert`."""
    parser = build_parser(
        "card convert",
        "FILE OUT [--spec {v2,v3,world}] [--picture PNG] [--force]",
        "Write a card as another kind (OUT ends in .json, .png or .charx) or version. Names what would be "
        "lost, and then writes only with --force.",
        convert,
    )
    parser.add_argument("file", metavar="FILE", help="a card: JSON, PNG or CHARX")
    parser.add_argument("out", metavar="OUT", help="must not exist, unless --force is given")
    parser.add_argument("--spec", choices=["v2", "v3", "world"], help=SPEC_HELP)
    parser.add_argument("--picture", metavar="PNG", help="carries the card when OUT is a PNG")
    parser.add_argument("--force", action="store_true", help="write even so; replace OUT")
    return parser


def check_parser() -> ArgumentParser:
    """The parser of `elysia card check`."""
    parser = build_parser(
        "card check",
        "FILE",
        "Read a card, or a lorebook or world file, as a chat would, and name what is odd in it. Exit code "
        "1 when it cannot be used.",
        check,
    )
    parser.add_argument("file", metavar="FILE", help="a card, a lorebook or a world file")
    return parser


def show(args: Namespace) -> int:
    """Print a summary of the card, or its JSON without a changed byte."""
    from elysia.core.card_file import read_card
    from elysia.core.card_json import dumps

    card = read_card(args.file)
    if args.json:
        say(dumps(card.document).decode())
        return 0
    fields = card.fields
    say(f"{escape_unprintable(fields['name'])} (V{card.version}, {card.kind})")
    for key in ("nickname", "creator", "character_version", "tags", "creator_notes", *SHOWN_TEXTS):
        if value := fields.get(key):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            say(f"{key:26}{escape_unprintable(shown)}")
    for number, greeting in enumerate(card.greetings):
        say(f"{f'greeting {number}':26}{escape_unprintable(greeting)}")
    if isinstance(book := fields.get("character_book"), dict):
        entries = book.get("entries")
        say(f"{'lorebook':26}{len(entries) if isinstance(entries, list) else 0} entries")
    if isinstance(extensions := fields.get("extensions"), dict) and extensions:
        say(f"{'extensions':26}{escape_unprintable(', '.join(extensions))}")
    return 0


def convert(args: Namespace) -> int:
    """Write OUT; an error, and nothing written, when that would lose something without --force."""
    from elysia.core.card_convert import build_v2_backfill, convert_kind, convert_version
    from elysia.core.card_file import get_file_kind, read_card, write_card

    out = Path(args.out)
    kind = get_file_kind(out)
    if out.exists() and not args.force:
        raise UsageError("cli.out_exists_force", path=out)
    if (book := read_bare_lorebook(args.file)) is not None:
        return convert_lorebook(book, out, args)
    if args.spec == "world":
        raise UsageError("cli.world_is_for_lorebooks")
    card = read_card(args.file)
    if kind == "charx" and args.spec == "v2":
        raise UsageError("cli.charx_is_v3")
    version = {"v2": 2, "v3": 3}.get(args.spec, 3 if kind == "charx" else card.version)
    card, lost_by_version = convert_version(card, version)
    card, lost_by_kind = convert_kind(card, kind)
    if kind == "png":
        card = with_picture(card, args.picture)
    refuse_losses([*lost_by_version, *lost_by_kind], out, args.force)
    write_card(card, out, build_v2_backfill(card) if card.version == 3 else b"")
    say(f"{out}: {escape_unprintable(card.fields['name'])}, V{card.version}, {kind}")
    return 0


def convert_lorebook(document: dict[str, Any], out: Path, args: Namespace) -> int:
    """Write a stand-alone lorebook as a world file, or the reverse."""
    from elysia.core.card_json import dumps
    from elysia.core.files import write_atomic
    from elysia.core.lorebook import parse_lorebook
    from elysia.core.sillytavern_world import (
        convert_lorebook_to_world,
        convert_world_to_lorebook,
        is_world,
    )

    if out.suffix.lower() != ".json" or args.spec == "v2":
        raise UsageError("cli.lorebook_is_json")
    parse_lorebook(document, args.file)  # raises when it is none
    world = is_world(document)
    lost: list[Text] = []
    if args.spec == "world" and not world:
        data = document["data"] if document.get("spec") == "lorebook_v3" else document
        document, lost = convert_lorebook_to_world(data)
    elif args.spec == "v3" and world:
        document = convert_world_to_lorebook(document)
    refuse_losses(lost, out, args.force)
    write_atomic(out, dumps(document))
    say(f"{out}: a lorebook")
    return 0


def refuse_losses(lost: list[Text], out: Path, force: bool) -> None:
    """Print what would be lost. Raises PersonaError when there is anything, except with --force."""
    for loss in lost:
        warn(f"lost: {escape_unprintable(str(loss))}")
    if lost and not force:
        raise PersonaError("cli.card_would_lose", path=out)


def with_picture(card: CharacterCard, path: str | None) -> CharacterCard:
    """The card with the picture in a file, else its own, else the main icon of its archive."""
    from elysia.core.card_convert import get_main_picture
    from elysia.core.png import read_png

    if path:
        return replace(card, picture=read_png(Path(path).read_bytes(), path), original=None)
    if card.picture is None and (icon := get_main_picture(card)):
        return replace(card, picture=read_png(icon, "the card's main icon"), original=None)
    if card.picture is None:
        raise UsageError("cli.card_without_picture")
    return card


def check(args: Namespace) -> int:
    """Print what is odd, a line each, and whether the file can be used."""
    from elysia.core.card_file import read_card
    from elysia.core.lorebook import parse_lorebook
    from elysia.core.persona import Persona

    book: object = read_bare_lorebook(args.file)
    if book is None:
        card = read_card(args.file)
        Persona.from_card(card.document, args.file)
        for note in card.notes:
            say(f"note: {escape_unprintable(str(note))}")
        if not any(card.greetings):
            say("note: there is no greeting; the user speaks first")
        book = card.fields.get("character_book") or {"entries": []}
    lorebook = parse_lorebook(book, args.file)
    for entry in lorebook.entries:
        for oddity in iter_oddities(entry):
            say(
                f"note: lorebook entry {entry.number + 1} ({escape_unprintable(entry.label)[:40]}): {oddity}"
            )
    say(f"{args.file} can be used; {len(lorebook.entries)} lorebook entries.")
    return 0


def read_bare_lorebook(path: str) -> dict[str, Any] | None:
    """The document of a lorebook or world file; None for anything else, which `read_card` judges."""
    from elysia.core.card_json import MAX_BYTES, loads

    file = Path(path)
    if not file.is_file() or file.suffix.lower() != ".json" or file.stat().st_size > MAX_BYTES:
        return None
    document = loads(file.read_bytes(), path)
    if not isinstance(document, dict):
        return None
    if document.get("spec") == "lorebook_v3" and isinstance(document.get("data"), dict):
        return document
    return document if "entries" in document and "spec" not in document else None


def iter_oddities(entry: LorebookEntry) -> Iterator[str]:
    """What keeps an entry from working as its author may have meant it to."""
    from elysia.chat.prompt.safe_regex import TimeLimitedRegex

    if not entry.text.strip():
        yield "it has no content and inserts nothing"
    if entry.use_regex and any(
        TimeLimitedRegex().search(key, "", False) is None for key in entry.keys
    ):
        yield "a key is no valid regular expression, so the entry never matches"
    if not entry.keys and not entry.constant and "activate" not in entry.decorators:
        yield "it has no keys and never matches"
