"""The chat service under many users, over a stand-in engine: errors, mixed-up users, memory, and the time
before the engine.

    python benchmarks/talk.py [--users 50] [--minutes 5]

Each user has one conversation (every tenth a group of two), a word that no other user says, and pauses for
about a second between messages; now and then a reply is regenerated, stopped or taken back. Printed: turns,
errors, replies and memories that held another user's word, the memory of the process after each fifth of
the time, CPU time per turn (the simulated users and all remembering included), and how long a reply waited
for everything before the engine (recall, documents, the prompt). With --same every user repeats one
sentence, so that growing memory is not data.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from elysia.app.chat_service import ChatServiceConfig, build_context_providers  # noqa: E402
from elysia.app.malloc import limit_malloc_arenas  # noqa: E402
from elysia.chat.accounts import AccountStore  # noqa: E402
from elysia.chat.characters import CharacterRegistry  # noqa: E402
from elysia.chat.chat_model import ChatModel  # noqa: E402
from elysia.chat.service import ChatService  # noqa: E402
from elysia.core import templates  # noqa: E402
from elysia.models.chat_format import ChatFormat  # noqa: E402
from elysia.store.database import open_database  # noqa: E402
from tests.chat.echo import EchoEngine  # noqa: E402

SAYINGS = (
    "我叫{word}，住在{place}。", "今天有点累。", "你还记得我住在哪里吗？", "My dog {word} likes rain.",
    "风铃坡的花开了吗？", "昨天我去了{place}。", "What did I tell you about {word}?", "绵绵呢？",
)  # fmt: skip
WORD = re.compile(r"w\d{3}q")
PLACES = ("北京", "上海", "成都", "海边", "山上", "Lisbon", "Oslo")


class SimulatedUser:
    """One user, who talks until the time is over."""

    def __init__(self, service: ChatService, number: int, until: float, same: bool) -> None:
        self.service, self.until = service, until
        self.sayings = SAYINGS[:1] if same else SAYINGS
        self.word = f"w{number:03d}q"
        self.chance = random.Random(number)
        self.user = AccountStore(service.database).get_or_create(f"visitor {number}").id
        guests = ["elysia", "xiaotang"] if number % 10 == 0 else ["elysia"]
        self.id = service.create(self.user, guests, {"examples": False, "max_new_tokens": 200}).id
        self.turns, self.faults, self.strangers = 0, [], 0
        self.prepared: list[float] = []

    def run(self) -> None:
        while time.monotonic() < self.until:
            try:
                self.turn()
            except Exception as error:  # counted, and shown at the end
                self.faults.append(f"{type(error).__name__}: {error}")
            time.sleep(self.chance.uniform(0.5, 1.5))

    def turn(self) -> None:
        service, user, id = self.service, self.user, self.id
        saying = self.chance.choice(self.sayings)
        text = saying.format(word=self.word, place=self.chance.choice(PLACES))
        reply = service.send(user, id, f"{text} ({self.word})")
        if self.chance.random() < 0.05:
            service.stop(user, id)
        for _ in service.follow(user, id, reply):
            pass
        while service.is_busy(user, id):
            time.sleep(0.02)
        self.turns += 1
        self.look()
        if self.chance.random() < 0.1:
            again = service.regenerate(user, id, reply)
            for _ in service.follow(user, id, again):
                pass
        if self.chance.random() < 0.05:
            service.undo(user, id)

    def look(self) -> None:
        for line in self.service.get_messages(self.user, self.id)[-3:]:
            if line.state == "failed":
                self.faults.append(str(line.fault))
            self.strangers += self.strange(line.text)
            if "prepared" in line.details:
                self.prepared.append(line.details["prepared"])
        newest = self.service.get_messages(self.user, self.id)[-1].id
        for hit in self.service.get_prompt_breakdown(self.user, self.id, newest).get(
            "memories", []
        ):
            self.strangers += self.strange(hit["text"])

    def strange(self, text: str) -> bool:
        """Whether a text holds another user's word."""
        return bool(set(WORD.findall(text)) - {self.word})


def main() -> None:
    """Run the benchmark and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--same", action="store_true", help="every user repeats one sentence")
    args = parser.parse_args()
    limit_malloc_arenas()  # as `build_chat_service` does
    with tempfile.TemporaryDirectory() as folder:
        config = ChatServiceConfig(database=f"{folder}/chat.db")
        database = open_database(config.database)
        model = ChatModel(
            EchoEngine(slots=8, pause=0.005, keep=False),
            ChatFormat(templates.get_template("internlm2_chat")),
        )
        service = ChatService(
            database,
            CharacterRegistry(database, ROOT / "configs" / "personas"),
            model,
            build_context_providers(config, database),
        )
        users, sizes, seconds = run_users(service, args.users, args.minutes * 60, args.same)
        database.close()
    print_figures(users, sizes, seconds, args.minutes)


def run_users(
    service: ChatService, count: int, seconds: float, same: bool
) -> tuple[list[SimulatedUser], list[int], float]:
    """The users after their time; the process's memory after each fifth (bytes); its CPU time (seconds)."""
    began, until = time.monotonic(), time.monotonic() + seconds
    users = [SimulatedUser(service, number, until, same) for number in range(count)]
    threads = [threading.Thread(target=user.run) for user in users]
    for thread in threads:
        thread.start()
    process = psutil.Process()
    before = process.cpu_times()
    sizes = []
    for fifth in range(1, 6):
        time.sleep(max(began + seconds * fifth / 5 - time.monotonic(), 0))
        sizes.append(process.memory_info().rss)
    for thread in threads:
        thread.join()
    service.close()
    after = process.cpu_times()
    return users, sizes, after.user + after.system - before.user - before.system


def print_figures(
    users: list[SimulatedUser], sizes: list[int], cpu_seconds: float, minutes: float
) -> None:
    """One line for each figure."""
    prepared = sorted(seconds for user in users for seconds in user.prepared)
    faults = [fault for user in users for fault in user.faults]
    turns = sum(user.turns for user in users)
    print(f"users {len(users)}, {minutes} min, {turns} turns")
    print(f"errors: {len(faults)}  {faults[:3]}")
    print(f"replies or memories with another user's word: {sum(u.strangers for u in users)}")
    shown = ", ".join(str(size >> 20) for size in sizes)
    print(f"memory after each fifth: {shown} MiB ({sizes[-1] / sizes[0] - 1:+.1%})")
    print(f"CPU time: {cpu_seconds / max(turns, 1) * 1000:.1f} ms a turn")
    if prepared:
        median, p95 = statistics.median(prepared), prepared[int(len(prepared) * 0.95)]
        print(f"before the engine: median {median * 1000:.1f} ms, 95 % {p95 * 1000:.1f} ms")


if __name__ == "__main__":
    main()
