"""`elysia kb`: documents that a character can look things up in.

What a document says is printed with its control characters spelled out: a stranger may have written
it. Knows nothing of how documents are read, split or found.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.options import add_hub
from elysia.cli.output import build_parser, say, warn
from elysia.core.errors import ElysiaError, KnowledgeError, UsageError
from elysia.core.paths import CHAT_DATABASE

if TYPE_CHECKING:
    from elysia.knowledge.document_store import DocumentStore

WIDTH = 300  # characters shown of a span
SHELF_FLAGS = "(--shelf S | --character NAME)"


def add_parser() -> ArgumentParser:
    """The parser of `elysia kb add`."""
    parser = build_parser(
        "kb add",
        f"FILE ... {SHELF_FLAGS}",
        "Put documents on a shelf: txt, md, pdf, docx, html, csv, epub, or every such file of a "
        "folder. One of the same name is replaced, and only what changed is indexed.",
        add,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="files and folders")
    add_flags(parser)
    return parser


def list_parser() -> ArgumentParser:
    """The parser of `elysia kb list`."""
    parser = build_parser(
        "kb list",
        f"[{SHELF_FLAGS[1:-1]}]",
        "List a shelf's documents, or every shelf's.",
        list_documents,
    )
    add_flags(parser)
    return parser


def search_parser() -> ArgumentParser:
    """The parser of `elysia kb search`."""
    parser = build_parser(
        "kb search",
        f"QUESTION {SHELF_FLAGS} [-k N]",
        "Find the spans that a reply to this question would be given, with file and place.",
        search,
    )
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("-k", type=int, default=4, metavar="N", help="how many (default: 4)")
    add_flags(parser)
    return parser


def remove_parser() -> ArgumentParser:
    """The parser of `elysia kb remove`."""
    parser = build_parser(
        "kb remove", f"NAME ... {SHELF_FLAGS}", "Take documents off a shelf, by name.", remove
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="as 'kb list' shows it")
    add_flags(parser)
    return parser


def add_flags(parser: ArgumentParser) -> None:
    """What every verb of the group takes."""
    parser.add_argument("--shelf", metavar="S", help="whose documents: any text")
    parser.add_argument(
        "--character", metavar="NAME", help="the shelf of a bundled character, such as elysia"
    )
    parser.add_argument(
        "--database", metavar="URL", help="a file or URL (default: work_dirs/chat/elysia.db)"
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="the index (default: index/knowledge beside the database)"
    )
    parser.add_argument(
        "--embedder", metavar="MODEL", help="an embedding model's folder or name (default: none)"
    )
    parser.add_argument("--chroma", metavar="URL", help="a Chroma server for the vectors")
    add_hub(parser, "where the embedder's name leads")


def add(args: Namespace) -> int:
    """Read and index each file; one that cannot be read does not keep the others out."""
    shelf = get_shelf(args)
    failed = 0
    with open_knowledge(args) as knowledge:
        files = ((file.name, partial(read_content, file)) for file in iter_files(args.files))
        for _, made in knowledge.add_all(shelf, files):
            if isinstance(made, KnowledgeError):
                failed += 1
                warn(f"error: {printable(str(made))}")
                continue
            pages = f", {made.pages} pages" if made.pages else ""
            say(f"{made.name}: {made.characters:,} characters{pages}, {made.spans} spans")
    return 1 if failed else 0


def list_documents(args: Namespace) -> int:
    """Print the documents of one shelf, or of all."""
    wanted = get_shelf(args) if args.shelf or args.character else None
    with open_knowledge(args) as knowledge:
        shelves = [wanted] if wanted else knowledge.shelves()
        for shelf in shelves:
            if not wanted:
                say(f"{printable(shelf)}:")
            for one in knowledge.documents(shelf):
                say(f"  {one.name}  {one.characters:,} characters, {one.spans} spans")
        if not shelves or (wanted and not knowledge.documents(wanted)):
            say("No documents.")
    return 0


def search(args: Namespace) -> int:
    """Print the best spans; exit code 1 when there is none."""
    shelf = get_shelf(args)
    if args.k < 1:
        raise UsageError("-k takes a number from 1.")
    with open_knowledge(args) as knowledge:
        found = knowledge.search([shelf], args.question, k=args.k)
    for one in found:
        page = f", page {one.page}" if one.page else ""
        heading = f", {one.heading}" if one.heading else ""
        place = f"{one.name}{page}{heading} [{one.start}-{one.end}]"
        say(f"{printable(place)}  {one.score:.3g} ({one.explanation})")
        say(f"    {printable(one.text)}")
    if not found:
        say("Nothing was found.")
    return 0 if found else 1


def remove(args: Namespace) -> int:
    """Take each named document off; KnowledgeError, and none removed, when one is not there."""
    shelf = get_shelf(args)
    with open_knowledge(args) as knowledge:
        there = {one.name: one.id for one in knowledge.documents(shelf)}
        if missing := [name for name in args.names if name not in there]:
            raise KnowledgeError(
                f"There is no {printable(missing[0])} on the shelf {printable(shelf)}; "
                "'elysia kb list' shows what is."
            )
        for name in dict.fromkeys(args.names):
            knowledge.remove(shelf, there[name])
            say(f"{name}: removed")
    return 0


def get_shelf(args: Namespace) -> str:
    """--shelf, or the character's; UsageError unless just one is given."""
    if bool(args.shelf) == bool(args.character):
        raise UsageError("Say whose documents: --character NAME, or --shelf S.")
    return str(args.shelf or f"character/{args.character}")


def iter_files(paths: list[str]) -> Iterator[Path]:
    """The files, and those of folders whose kind is read. UsageError for what is not there."""
    from elysia.knowledge.readers import READERS

    for path in map(Path, paths):
        if not path.exists():
            raise UsageError(f"There is no file {path}.")
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(path.iterdir())
            yield from (one for one in inside if one.is_file() and one.suffix.lower() in READERS)
        else:
            yield path


def read_content(file: Path) -> bytes:
    """A file's bytes, one more than is allowed at most: the reader refuses it then."""
    from elysia.knowledge.sandbox import MAX_FILE

    with file.open("rb") as stream:
        return stream.read(MAX_FILE + 1)


@contextmanager
def open_knowledge(args: Namespace) -> Iterator[DocumentStore]:
    """The knowledge base that the flags name."""
    from elysia.knowledge.document_store import open_document_store
    from elysia.retrieval.embedders import open_embedder
    from elysia.store.database import get_database_folder, open_database

    url = args.database or CHAT_DATABASE
    folder = Path(args.folder or get_database_folder(url) / "index" / "knowledge")
    embedder = open_embedder(args.embedder, args.hub or "huggingface")
    database = open_database(url)
    try:
        knowledge = open_document_store(database, folder, embedder, server=args.chroma)
        try:
            yield knowledge
            knowledge.wait()
        finally:
            knowledge.close()
    except OSError as error:
        raise ElysiaError(f"{error.filename or folder}: {error.strerror}.") from error
    finally:
        database.close()


def printable(text: str) -> str:
    """One line; what would move a terminal's cursor is spelled out."""
    from elysia.cli.card import escape_unprintable as spelled_out

    return spelled_out(text)
