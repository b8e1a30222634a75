"""A process that talks without end and says each message that was accepted: to be killed at any moment.

python tests/chat/sender.py DATABASE CONVERSATION NUMBER
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from elysia.chat.accounts import AccountStore  # noqa: E402
from elysia.chat.characters import CharacterRegistry  # noqa: E402
from elysia.chat.chat_model import ChatModel  # noqa: E402
from elysia.chat.service import ChatService  # noqa: E402
from elysia.core import templates  # noqa: E402
from elysia.models.chat_format import ChatFormat  # noqa: E402
from elysia.store.database import open_database  # noqa: E402
from tests.chat.echo import EchoEngine  # noqa: E402


def main(path: str, conversation: str, number: str) -> None:
    database = open_database(path)
    engine = EchoEngine(pause=0.002)
    service = ChatService(
        database,
        CharacterRegistry(database, ROOT / "configs" / "personas"),
        ChatModel(engine, ChatFormat(templates.get_template("internlm2_chat"))),
    )
    user = AccountStore(database).local().id
    for count in itertools.count():
        text = f"life {number} message {count}"
        reply = service.send(user, conversation, text)
        print(f"sent {text}", flush=True)
        if count % 3:  # every third is left in the middle by the next
            for _ in service.follow(user, conversation, reply):
                pass


if __name__ == "__main__":
    main(*sys.argv[1:])
