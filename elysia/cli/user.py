"""`elysia user`: who may log in to the page. Once there is a user, the page asks for name and password."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from elysia.cli.output import build_parser, say
from elysia.core.errors import UsageError

if TYPE_CHECKING:
    from elysia.chat.accounts import AccountStore


def _build_parser(
    verb: str, usage: str, description: str, run: Callable[[Namespace], int]
) -> ArgumentParser:
    parser = build_parser(f"user {verb}", usage, description, run)
    parser.add_argument("--database", metavar="URL", help="default: work_dirs/chat/elysia.db")
    return parser


def add_parser() -> ArgumentParser:
    """The parser of `elysia user add`."""
    parser = _build_parser(
        "add", "NAME", "Add a user; the password is asked for, or read from standard input.", add
    )
    parser.add_argument("name", metavar="NAME")
    return parser


def password_parser() -> ArgumentParser:
    """The parser of `elysia user password`."""
    parser = _build_parser("password", "NAME", "Set another password.", password)
    parser.add_argument("name", metavar="NAME")
    return parser


def remove_parser() -> ArgumentParser:
    """The parser of `elysia user remove`."""
    parser = _build_parser(
        "remove", "NAME", "Delete a user with every conversation, card and memory.", remove
    )
    parser.add_argument("name", metavar="NAME")
    return parser


def list_parser() -> ArgumentParser:
    """The parser of `elysia user list`."""
    return _build_parser("list", "", "List the users.", list_users)


def add(args: Namespace) -> int:
    """Add a user."""
    with open_accounts(args) as accounts:
        accounts.add(args.name, read_password())
    say(f"{args.name} may log in now.")
    return 0


def password(args: Namespace) -> int:
    """Set another password."""
    with open_accounts(args) as accounts:
        accounts.set_password(args.name, read_password())
    say(f"{args.name} has another password now.")
    return 0


def remove(args: Namespace) -> int:
    """Delete a user."""
    with open_accounts(args) as accounts:
        accounts.remove(args.name)
    say(f"{args.name} is gone.")
    return 0


def list_users(args: Namespace) -> int:
    """Print the names, a line each."""
    with open_accounts(args) as accounts:
        for user in accounts.all():
            say(user.name)
    return 0


@contextmanager
def open_accounts(args: Namespace) -> Iterator[AccountStore]:
    """The users in the database that --database or ELYSIA_DATABASE names."""
    from elysia.app.chat_service import ChatServiceConfig
    from elysia.chat.accounts import AccountStore
    from elysia.store.database import open_database

    database = open_database(ChatServiceConfig.from_environment(database=args.database).database)
    try:
        yield AccountStore(database)
    finally:
        database.close()


def read_password() -> str:
    """A password typed twice without being shown, or the first line from a pipe.

    There is no flag for it: every program on the machine can read the arguments of a process.
    """
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Again: "):
        raise UsageError("cli.passwords_differ")
    return first
