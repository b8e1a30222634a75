"""A site for browser tests: a stand-in engine that obeys words in the message, memory and knowledge in
dicts.

«held …» stops half-way until it is stopped or the file `free` lies in the folder; «fail» fails while the
file `gone` lies there; «numbered …» tells its replies apart; a prompt with documents is answered with their
words. All else is echoed.
"""

from __future__ import annotations

import ast
import itertools
import re
import threading
import time
import uuid
import zlib
from dataclasses import replace
from pathlib import Path

from elysia.chat.characters import CharacterRegistry
from elysia.chat.chat_model import ChatModel
from elysia.chat.prompt.context import ContextProviders
from elysia.chat.service import ChatService
from elysia.core import templates
from elysia.core.errors import EngineError, KnowledgeError, MemoryFault
from elysia.engines.base import Delta, TokenUsage
from elysia.knowledge.base import Document, SearchHit
from elysia.memory.base import Memory, MemoryHit, ReasonKind, RecallReason
from elysia.models.chat_format import ChatFormat
from elysia.models.streaming_text import StopTextFilter
from elysia.store.database import open_database
from elysia.voice.base import AudioChunk
from elysia.voice.streaming import TTSWorkerPool
from elysia.web.app_state import AppState, build_app_state

PERSONAS = Path(__file__).parents[2] / "configs" / "personas"
TABLE = 6  # characters that it says at once


class ObedientEngine:
    """Echoes; holding on, failing or citing when it is told so."""

    capabilities: frozenset = frozenset()
    slots = 4
    context_length = 4096

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = itertools.count(1)

    def count_tokens(self, messages, template) -> int:
        return sum(len(message.text) // 2 + 4 for message in messages)

    def stream(self, request, cancel=None):
        asked = next(m.text for m in reversed(request.messages) if m.role == "user")
        system = request.messages[0].text
        if "fail" in asked and (self.folder / "gone").exists():
            yield Delta("I was just about")
            raise EngineError(
                "The server at http://127.0.0.1:1 does not answer; start it, then try again."
            )
        passage = re.search(r"^\[1\] .*?: (.*)$", system, re.M)
        spoken = self.scripted(asked, system)
        text = spoken or (f"It is written: {passage[1][:80]} [1]" if passage else f"heard: {asked}")
        if "numbered" in asked:
            text += f" ({next(self.number)})"
        stops = StopTextFilter(request.stop)
        for start in range(0, len(text), TABLE):
            if start >= len(text) // 2:
                self.hold(asked, cancel)
            if cancel is not None and cancel.wait(0.002):
                yield Delta(stops.rest(), "cancelled", TokenUsage(1, start))
                return
            if piece := stops.push(text[start : start + TABLE]):
                yield Delta(piece)
            if stops.stopped:
                break
        yield Delta(stops.rest(), "stop", TokenUsage(1, len(text) // 2))

    def hold(self, asked, cancel):
        """Wait, when it is told so, as long as a test wants to look at a reply that is being written."""
        free = self.folder / "free"
        while (
            "held" in asked and cancel is not None and not free.exists() and not cancel.wait(0.02)
        ):
            pass

    def scripted(self, asked, system):
        """For screenshots: the reply of `replies.txt` whose key is in the question; at a table, the one
        whose key (behind 桌) begins the system prompt of who speaks.
        """
        file = self.folder / "replies.txt"
        rows = (
            [row.split("\t", 1) for row in file.read_text("utf-8").splitlines()]
            if file.exists()
            else []
        )
        replies = {key: ast.literal_eval(text) for key, text in rows}
        if "在座" in system:
            return next(
                (text for key, text in replies.items() if key[0] == "桌" and key[1:] in system[:8]),
                None,
            )
        return next((text for key, text in replies.items() if key in asked), None)

    def embed(self, texts):
        raise EngineError("none")

    def close(self) -> None:
        pass


class DictMemory:
    """Every message that begins with «I » or 我 is a fact, every other a turn; recalls by shared words."""

    def __init__(self) -> None:
        self._of: dict = {}
        self._lock = threading.Lock()

    def remember(self, scope, heard):
        added = []
        with self._lock:
            memories = self._of.setdefault(scope, {})
            for message in heard:
                if message.role == "user" and all(
                    m.message_id != message.message_id for m in memories.values()
                ):
                    kind = "fact" if message.text.startswith(("I ", "我")) else "turn"
                    id = uuid.uuid4().hex
                    memories[id] = Memory(
                        id,
                        kind,
                        message.text,
                        message.at,
                        conversation_id=message.conversation_id,
                        message_id=message.message_id,
                    )
                    added.append(memories[id])
        return added

    def recall(self, scope, question, *, k=8, without=()):
        words = set(re.findall(r"\w{3,}|[\u4e00-\u9fff]", question.lower()))
        hits = []
        for memory in self.list_memories(scope):
            shared = words & set(re.findall(r"\w{3,}|[\u4e00-\u9fff]", memory.text.lower()))
            if shared and memory.current and memory.message_id not in without:
                score = len(shared) / len(words)
                hits.append(MemoryHit(memory, score, (RecallReason(ReasonKind.WORDS, score),)))
        return sorted(hits, key=lambda hit: -hit.score)[:k]

    def list_memories(self, scope, *, kind=None, limit=200):
        memories = [m for m in self._of.get(scope, {}).values() if kind in (None, m.kind)]
        return sorted(memories, key=lambda m: -m.at)[:limit]

    def correct(self, scope, memory_id, text):
        self._of[scope][memory_id] = replace(self._get(scope, memory_id), text=text, corrected=True)
        return self._of[scope][memory_id]

    def forget(self, scope, memory_id):
        self._get(scope, memory_id)
        del self._of[scope][memory_id]

    def _get(self, scope, memory_id):
        if memory_id not in self._of.get(scope, {}):
            raise MemoryFault("There is no such memory.")
        return self._of[scope][memory_id]

    def forget_messages(self, scope, message_ids):
        memories = self._of.get(scope, {})
        for id in [id for id, m in memories.items() if m.message_id in message_ids]:
            del memories[id]

    def forget_all(self, scope):
        self._of.pop(scope, None)

    def close(self):
        pass


class DictKnowledge:
    """Paragraphs are spans, found by shared words."""

    def __init__(self) -> None:
        self._shelves: dict = {}
        self._number = itertools.count()

    def add(self, collection, name, content, progress=None):
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise KnowledgeError(f"{name} is not UTF-8 text.") from None
        for share in (0.3, 1.0):
            if progress:
                progress(share)
        spans, place = [], 0
        for part in re.split(r"(\n\s*\n)", text):
            if part.strip():
                spans.append((place, place + len(part)))
            place += len(part)
        document = Document(
            f"d{next(self._number)}", collection, name, len(text), len(spans), time.time()
        )
        here = self._shelves.setdefault(collection, {})
        for id in [id for id, (old, _, _) in here.items() if old.name == name]:
            del here[id]
        here[document.id] = (document, text, spans)
        return document

    def sync(self, collection, folder):
        raise NotImplementedError

    def documents(self, collection):
        return sorted(
            (document for document, _, _ in self._shelves.get(collection, {}).values()),
            key=lambda d: d.name,
        )

    def text(self, collection, document_id):
        if document_id not in self._shelves.get(collection, {}):
            raise KnowledgeError("There is no such document on this shelf.")
        return self._shelves[collection][document_id][1]

    def remove(self, collection, document_id):
        self.text(collection, document_id)
        del self._shelves[collection][document_id]

    def close(self):
        pass

    def search(self, shelves, question, *, k=4):
        words = set(re.findall(r"[a-z]{4,}|[\u4e00-\u9fff]{2}", question.lower()))
        hits = []
        for collection in shelves:
            for document, text, spans in self._shelves.get(collection, {}).values():
                for start, end in spans:
                    shared = [word for word in words if word in text[start:end].lower()]
                    if shared:
                        heading = (
                            text[:start].strip().splitlines()[-1].lstrip("# ")
                            if "#" in text[:start]
                            else ""
                        )
                        hits.append(
                            SearchHit(
                                document.id,
                                document.name,
                                start,
                                end,
                                text[start:end],
                                len(shared) / len(words),
                                heading[:40],
                                lexical_rank=1,
                            )
                        )
        return sorted(hits, key=lambda hit: -hit.score)[:k]


class ToneVoice:
    """A second of a quiet tone for each sentence; says whose it is by its height."""

    def __init__(self, name: str) -> None:
        half = 1 + zlib.crc32(name.encode()) % 20  # samples of half a wave
        wave = b"\x00\x01" * half + b"\x00\xff" * half
        self.piece = (wave * (4000 // half))[:8000]

    def synthesize(self, text, speed=1.0):
        for _ in range(4):
            yield AudioChunk(self.piece, 16_000)

    def close(self) -> None:
        pass


def open_stand_in(folder: Path) -> AppState:
    """A site whose data lies in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    database = open_database(str(folder / "chat.db"))
    model = ChatModel(ObedientEngine(folder), ChatFormat(templates.get_template("internlm2_chat")))
    around = ContextProviders(memory=DictMemory(), knowledge=DictKnowledge())
    service = ChatService(database, CharacterRegistry(database, PERSONAS), model, around)
    site = build_app_state(service, folder / "web.key")
    site.voices = TTSWorkerPool(lambda name: (ToneVoice(name), 1.0))
    return site
