"""The verbs around people: who may log in to the pages.

Knows the flags and what is printed, nothing of how a password is kept.
"""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from elysia.cli.output import say
from elysia.core.errors import UsageError

if TYPE_CHECKING:
    from elysia.chat.accounts import Accounts


def add_parser() -> ArgumentParser:
    """`user add NAME`."""
    parser = _parser("Let somebody log in with a password; once anybody has one, the pages ask.")
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(run=_add)
    return parser


def password_parser() -> ArgumentParser:
    """`user password NAME`."""
    parser = _parser("Set another password; logins with the old one end.")
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(run=_password)
    return parser


def list_parser() -> ArgumentParser:
    """`user list`."""
    parser = _parser("List everybody who has talked or may log in.")
    parser.set_defaults(run=_list)
    return parser


def remove_parser() -> ArgumentParser:
    """`user remove NAME`."""
    parser = _parser("Delete somebody with conversations, cards and memories.")
    parser.add_argument("name", metavar="NAME")
    parser.set_defaults(run=_remove)
    return parser


def _parser(description: str) -> ArgumentParser:
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--database", metavar="URL",
        help="a file or a URL; by default ELYSIA_DATABASE, else work_dirs/chat/elysia.db",
    )  # fmt: skip
    return parser


@contextmanager
def _accounts(args: Namespace) -> Iterator[Accounts]:
    from elysia.app.talk import TalkHome
    from elysia.chat.accounts import Accounts
    from elysia.store.database import open_database

    database = open_database(TalkHome.of(database=args.database).database)
    try:
        yield Accounts(database)
    finally:
        database.close()


def _add(args: Namespace) -> int:
    with _accounts(args) as accounts:
        accounts.add(args.name, _asked())
    say(f"{args.name} may log in. A page that is running asks for passwords after a restart.")
    return 0


def _password(args: Namespace) -> int:
    with _accounts(args) as accounts:
        accounts.set_password(args.name, _asked())
    say(f"{args.name} has another password.")
    return 0


def _list(args: Namespace) -> int:
    with _accounts(args) as accounts:
        for user in accounts.all():
            say(f"{user.name}\t{'password' if accounts.stamp(user.id) else 'no password'}")
    return 0


def _remove(args: Namespace) -> int:
    with _accounts(args) as accounts:
        accounts.remove(args.name)
    say(f"{args.name} is gone, with everything that was theirs.")
    return 0


def _asked() -> str:
    """A password typed twice unseen, or the first line of a pipe."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Again: "):
        raise UsageError("The two are not the same; nothing was changed.")
    return first
