"""`elysia kb`: the documents that a character can look things up in.

Texts of a document may come from strangers, so their control characters are spelled out.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.options import add_hub, require_at_least
from elysia.cli.output import build_parser, say, warn
from elysia.cli.terminal import escape_unprintable
from elysia.core.errors import ElysiaError, KnowledgeError, UsageError
from elysia.core.paths import CHAT_DATABASE

if TYPE_CHECKING:
    from elysia.knowledge.document_store import DocumentStore

SHELF_FLAGS = "(--shelf S | --character NAME)"


def add_parser() -> ArgumentParser:
    """The parser of `elysia kb add`."""
    parser = build_parser(
        "kb add",
        f"FILE ... {SHELF_FLAGS}",
        "Add documents to a shelf: txt, md, pdf, docx, html, csv, epub, or every such file of a "
        "folder. A document of the same name is replaced, and only what changed is indexed again.",
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
        "Find the passages that a reply to this question would be given, with file and place.",
        search,
    )
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("-k", type=int, default=4, metavar="N", help="how many (default: 4)")
    add_flags(parser)
    return parser


def remove_parser() -> ArgumentParser:
    """The parser of `elysia kb remove`."""
    parser = build_parser(
        "kb remove", f"NAME ... {SHELF_FLAGS}", "Remove documents from a shelf, by name.", remove
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="as 'kb list' shows it")
    add_flags(parser)
    return parser


def add_flags(parser: ArgumentParser) -> None:
    """The flags of every verb of the group."""
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
    """Read and index each file; one that cannot be read does not stop the others."""
    shelf = get_shelf(args)
    failed = 0
    with open_knowledge(args) as knowledge:
        files = ((file.name, partial(read_content, file)) for file in iter_files(args.files))
        for _, document in knowledge.add_all(shelf, files):
            if isinstance(document, KnowledgeError):
                failed += 1
                warn(f"error: {escape_unprintable(str(document))}")
                continue
            pages = f", {document.pages} pages" if document.pages else ""
            say(
                f"{document.name}: {document.characters:,} characters{pages}, {document.spans} spans"
            )
    return 1 if failed else 0


def list_documents(args: Namespace) -> int:
    """Print the documents of one shelf, or of all shelves."""
    chosen = get_shelf(args) if args.shelf or args.character else None
    with open_knowledge(args) as knowledge:
        shelves = [chosen] if chosen else knowledge.shelves()
        for shelf in shelves:
            if not chosen:
                say(f"{escape_unprintable(shelf)}:")
            for item in knowledge.documents(shelf):
                say(f"  {item.name}  {item.characters:,} characters, {item.spans} spans")
        if not shelves or (chosen and not knowledge.documents(chosen)):
            say("No documents.")
    return 0


def search(args: Namespace) -> int:
    """Print the best passages; exit code 1 when there is none."""
    shelf = get_shelf(args)
    require_at_least(args, 1, "-k")
    with open_knowledge(args) as knowledge:
        hits = knowledge.search([shelf], args.question, k=args.k)
    for hit in hits:
        page = f", page {hit.page}" if hit.page else ""
        heading = f", {hit.heading}" if hit.heading else ""
        place = f"{hit.name}{page}{heading} [{hit.start}-{hit.end}]"
        say(f"{escape_unprintable(place)}  {hit.score:.3g} ({hit.explanation})")
        say(f"    {escape_unprintable(hit.text)}")
    if not hits:
        say("Nothing was found.")
    return 0 if hits else 1


def remove(args: Namespace) -> int:
    """Remove each named document. Raises KnowledgeError, and removes none, when one is not there."""
    shelf = get_shelf(args)
    with open_knowledge(args) as knowledge:
        ids = {item.name: item.id for item in knowledge.documents(shelf)}
        if missing := [name for name in args.names if name not in ids]:
            name, place = escape_unprintable(missing[0]), escape_unprintable(shelf)
            raise KnowledgeError("cli.no_such_document", name=name, shelf=place)
        for name in dict.fromkeys(args.names):
            knowledge.remove(shelf, ids[name])
            say(f"{name}: removed")
    return 0


def get_shelf(args: Namespace) -> str:
    """--shelf, or the shelf of --character. Raises UsageError unless exactly one is given."""
    if bool(args.shelf) == bool(args.character):
        raise UsageError("cli.shelf_needed")
    return str(args.shelf or f"character/{args.character}")


def iter_files(paths: list[str]) -> Iterator[Path]:
    """The files, and the readable files of folders. Raises UsageError for a path that does not exist."""
    from elysia.knowledge.readers import READERS

    for path in map(Path, paths):
        if not path.exists():
            raise UsageError("cli.no_such_file", path=path)
    for path in map(Path, paths):
        if path.is_dir():
            files = (file for file in sorted(path.iterdir()) if file.is_file())
            yield from (file for file in files if file.suffix.lower() in READERS)
        else:
            yield path


def read_content(file: Path) -> bytes:
    """A file's bytes, at most one more than is allowed, which is enough for the reader to refuse it."""
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
        where = error.filename or folder
        raise ElysiaError("core.at", where=where, problem=f"{error.strerror}.") from error
    finally:
        database.close()
