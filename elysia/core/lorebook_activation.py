"""Which entries of a lorebook are inserted in a turn, where, why, and which fell out for room.

https://github.com/kwaroran/character-card-spec-v3 . Regular expressions are matched by a function
that is handed in, because the standard library's may run for ever on a stranger's pattern; without
one they never match. Knows nothing of how a prompt is laid out.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from elysia.core.lorebook import Lorebook, LorebookEntry
from elysia.core.macros import expand_for_scan
from elysia.core.messages import Message

# (pattern, text, case sensitive) -> found; None when the pattern is invalid or took too long.
PatternSearch = Callable[[str, str, bool], bool | None]
SCAN_DEPTH = 4  # messages, where nobody says
MAX_ROUNDS = 10  # of entries waking entries
MAX_MESSAGE = 20_000  # characters of a message that are looked at, from its end
MAX_WOKEN = 100_000  # characters of entries that are looked at


@dataclass(frozen=True)
class ScanContext:
    """What an entry can depend on. `messages` are the chat alone, the oldest first."""

    messages: Sequence[Message]
    greeting: int | None = None  # which one opened the chat; None: not known
    matched_before: Collection[str] = ()  # ids of entries that matched in earlier turns
    context: int | None = None  # tokens, for a book whose budget is a part of them
    full: bool = False  # whether the context is at its end
    user_icon: str | None = None


@dataclass(frozen=True, eq=False)
class ActivatedEntry:
    """One entry's text on its way into the prompt. `depth` counts for place 'depth' alone."""

    entry: LorebookEntry
    text: str
    place: str  # before_char, after_char, before_desc, after_desc, personality, scenario, depth
    depth: int
    role: str
    why: str
    tokens: int


@dataclass(frozen=True)
class ActivationResult:
    """A turn's lore, in the order of insertion, and what the budget left out."""

    inserted: tuple[ActivatedEntry, ...] = ()
    dropped: tuple[ActivatedEntry, ...] = ()
    matched: frozenset[str] = field(default_factory=frozenset)

    def at(self, *places: str) -> list[str]:
        """The texts for these places."""
        return [one.text for one in self.inserted if one.place in places]


def activate_entries(
    book: Lorebook,
    scene: ScanContext,
    count: Callable[[str], int],
    *,
    fill: Callable[[str], str] = str,
    search: PatternSearch | None = None,
    chance: random.Random | None = None,
) -> ActivationResult:
    """The entries that a turn activates, within the book's budget.

    `count` gives a text's tokens, `fill` replaces macros, `chance` decides entries that match only
    sometimes.
    """
    reasons = _match_entries(book, scene, fill, search or _no_search, chance or random.Random(0))
    found = []
    for entry, why in reasons.items():
        if text := fill(entry.text).strip():  # nothing to say: nothing is inserted
            place, depth, role = _get_position(entry)
            found.append(ActivatedEntry(entry, text, place, depth, role, why, count(text)))
    found.sort(key=lambda one: (one.entry.insertion_order, one.entry.number))
    budget = book.token_budget
    if budget is None and book.share is not None and scene.context is not None:
        budget = int(book.share * scene.context)
    kept = _fit_budget(found, budget)
    held = set(kept)
    dropped = tuple(one for one in found if one not in held)
    return ActivationResult(tuple(kept), dropped, frozenset(entry.id for entry in reasons))


def _fit_budget(found: list[ActivatedEntry], budget: int | None) -> list[ActivatedEntry]:
    """Without the lowest priorities, else insertion orders, until the rest fits."""
    gone: set[ActivatedEntry] = set()
    total = sum(one.tokens for one in found)

    def worth(one: ActivatedEntry) -> tuple[float, float, int]:
        entry = one.entry
        order = entry.insertion_order
        return (order if entry.priority is None else entry.priority, order, -entry.number)

    for one in sorted(found, key=worth):
        if budget is None or total <= budget:
            break
        gone.add(one)
        total -= one.tokens
    return [one for one in found if one not in gone]


def _match_entries(
    book: Lorebook,
    scene: ScanContext,
    fill: Callable[[str], str],
    search: PatternSearch,
    chance: random.Random,
) -> dict[LorebookEntry, str]:
    """Every matching entry with the reason, in the order of matching."""
    said = [expand_for_scan(message.text[-MAX_MESSAGE:]) for message in scene.messages]
    fold = functools.cache(str.casefold)  # a text is looked at for every key
    found: dict[LorebookEntry, str] = {}
    unlucky: set[int] = set()
    waiting = [entry for entry in book.entries if entry.enabled]
    woken: list[str] = []  # all contents that may wake others
    for number in range(MAX_ROUNDS if book.recursive else 1):
        fresh: list[LorebookEntry] = []
        for entry in [one for one in waiting if one.number not in unlucky]:
            texts = _get_scan_window(said, entry, book)
            more = woken if number and entry.woken_by_entries else []
            why = _get_match_reason(entry, [*texts, *more], scene, fill, search, fold)
            if why and entry.chance < 1 and chance.random() >= entry.chance:
                unlucky.add(entry.number)
            if why and entry.number not in unlucky:
                found[entry] = why
                fresh.append(entry)
        waiting = [entry for entry in waiting if entry not in found]
        room = MAX_WOKEN - sum(map(len, woken))
        awake = [
            expand_for_scan(fill_names(one.text, fill), recursive=True)
            for one in fresh
            if one.wakes_entries
        ]
        if not fresh or room <= 0:
            break
        woken += [text[:room] for text in awake]
    return found


def _get_scan_window(said: Sequence[str], entry: LorebookEntry, book: Lorebook) -> Sequence[str]:
    depth = entry.decorators.get("scan_depth", entry.scan_depth)
    if depth is None:
        depth = SCAN_DEPTH if book.scan_depth is None else book.scan_depth
    return said[-int(depth) :] if isinstance(depth, int) and depth > 0 else []


def _get_match_reason(
    entry: LorebookEntry,
    texts: Sequence[str],
    scene: ScanContext,
    fill: Callable[[str], str],
    search: PatternSearch,
    fold: Callable[[str], str],
) -> str:
    """Why the entry matches; '' when it does not."""
    said = entry.decorators
    if "activate" in said:
        return "@@activate"
    if "dont_activate" in said:
        return ""
    before = entry.id in scene.matched_before
    if before and "dont_activate_after_match" in said:
        return ""
    if before and "keep_activate_after_match" in said:
        return "@@keep_activate_after_match"
    if not _is_timely(entry, scene):
        return ""

    def key_in(keys: Sequence[str]) -> str:
        return next(
            (key for key in keys if _is_key_in_any(fill_names(key, fill), entry, texts, fold)), ""
        )

    if entry.use_regex:
        return _search_patterns(entry, texts, search)
    if "additional_keys" in said and not key_in(_get_decorator_list(entry, "additional_keys")):
        return ""
    if "exclude_keys" in said and key_in(_get_decorator_list(entry, "exclude_keys")):
        return ""
    if entry.constant:
        return "constant"
    key = key_in(entry.keys)
    if key and entry.selective and entry.secondary_keys:
        hits = [bool(key_in([other])) for other in entry.secondary_keys]
        passed = {
            "any": any(hits), "all": all(hits), "not_any": not any(hits), "not_all": not all(hits),
        }  # fmt: skip
        return f"{key} + secondary keys" if passed[entry.logic] else ""
    return key


def _is_timely(entry: LorebookEntry, scene: ScanContext) -> bool:
    """Whether the decorators that look at the chat's course allow the entry."""
    said = entry.decorators
    replies = sum(message.role == "assistant" for message in scene.messages)
    after, every = said.get("activate_only_after"), said.get("activate_only_every")
    return not (
        (isinstance(after, int) and replies < after)
        or (isinstance(every, int) and replies % every)
        or ("ignore_on_max_context" in said and scene.full)
        or (
            scene.greeting is not None and said.get("is_greeting", scene.greeting) != scene.greeting
        )
        or (scene.user_icon and said.get("is_user_icon", scene.user_icon) != scene.user_icon)
    )


def _search_patterns(entry: LorebookEntry, texts: Sequence[str], search: PatternSearch) -> str:
    """The first pattern found; one that is invalid keeps the entry from ever matching."""
    found = ""
    for pattern in (*entry.keys, *_get_decorator_list(entry, "additional_keys")):
        for text in texts or [""]:
            hit = search(pattern, text, entry.case_sensitive)
            if hit is None:
                return ""
            if hit and text and not found:
                found = pattern
    return found


def _get_decorator_list(entry: LorebookEntry, name: str) -> tuple[str, ...]:
    value = entry.decorators.get(name)
    return value if isinstance(value, tuple) else ()


def _is_key_in_any(
    key: str, entry: LorebookEntry, texts: Sequence[str], fold: Callable[[str], str]
) -> bool:
    """Whether a plain key is in one of `texts`. Whole words are for scripts with spaces: a key with
    any other letter is found anywhere, as unspaced Chinese needs.
    """
    if not entry.case_sensitive:
        key, texts = key.casefold(), [fold(text) for text in texts]
    if entry.whole_words and key.isascii():
        word = re.compile(rf"(?<![0-9A-Za-z_]){re.escape(key)}(?![0-9A-Za-z_])")
        return any(word.search(text) for text in texts)
    return any(key in text for text in texts)


def fill_names(text: str, fill: Callable[[str], str]) -> str:
    """{{char}} and {{user}} filled, nothing drawn: looking must not change what is drawn later."""
    return (
        NAME_MACROS.sub(lambda found: fill(found[0]), text) if "{" in text or "<" in text else text
    )


NAME_MACROS = re.compile(r"\{\{\s*(?:char|user)\s*\}\}|<(?:char|bot|user)>", re.I)


def _get_position(entry: LorebookEntry) -> tuple[str, int, str]:
    said = entry.decorators
    role, place, depth = said.get("role", entry.role), said.get("position"), said.get("depth")
    if isinstance(place, str):
        return place, 0, str(role)
    if isinstance(depth, int):
        return "depth", max(depth, 0), str(role)
    return entry.position, entry.depth, str(role)


def _no_search(pattern: str, text: str, case_sensitive: bool) -> bool | None:
    return None
