"""Lorebook activation: which entries enter the prompt of a turn, where, why, and which exceed the budget.

Specification: https://github.com/kwaroran/character-card-spec-v3 . Regular expressions are matched by a
function that the caller passes in, because Python's own `re` may run for ever on a stranger's pattern.
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

# (pattern, text, case sensitive) -> whether it matches; None when it is invalid or took too long.
PatternSearch = Callable[[str, str, bool], bool | None]
SCAN_DEPTH = 4  # messages, where neither entry nor book says
MAX_ROUNDS = 10  # of entries activating entries
MAX_MESSAGE = 20_000  # characters of a message that are scanned, counted from its end
MAX_WOKEN = 100_000  # characters of activated entries that are scanned for further keys
NAME_MACROS = re.compile(r"\{\{\s*(?:char|user)\s*\}\}|<(?:char|bot|user)>", re.I)


@dataclass(frozen=True)
class ScanContext:
    """The state of a chat that activation depends on. `messages` are in order, the oldest first."""

    messages: Sequence[Message]
    greeting: int | None = None  # index of the greeting that opened the chat; None: unknown
    matched_before: Collection[str] = ()  # ids of entries that matched in earlier turns
    context: int | None = None  # tokens, for a book whose budget is a share of them
    full: bool = False  # whether the context is used up
    user_icon: str | None = None


@dataclass(frozen=True, eq=False)
class ActivatedEntry:
    """One entry's text on its way into the prompt. `depth` matters for place "depth" alone."""

    entry: LorebookEntry
    text: str
    place: str  # before_char, after_char, before_desc, after_desc, personality, scenario, depth
    depth: int  # messages from the end of the chat
    role: str
    why: str  # the key or decorator that matched
    tokens: int


@dataclass(frozen=True)
class ActivationResult:
    """The entries of a turn in the order of insertion, and those that did not fit the budget."""

    inserted: tuple[ActivatedEntry, ...] = ()
    dropped: tuple[ActivatedEntry, ...] = ()
    matched: frozenset[str] = field(default_factory=frozenset)  # ids

    def at(self, *places: str) -> list[str]:
        """The inserted texts for these places."""
        return [item.text for item in self.inserted if item.place in places]


def activate_entries(
    book: Lorebook,
    scene: ScanContext,
    count: Callable[[str], int],
    *,
    fill: Callable[[str], str] = str,
    search: PatternSearch | None = None,
    chance: random.Random | None = None,
) -> ActivationResult:
    """The entries that a turn activates, within the book's budget of tokens.

    `count` gives the tokens of a text, `fill` expands its macros, `search` matches regular expressions
    (without it, entries with them never match) and `chance` decides entries with a probability.
    """
    reasons = _match_entries(book, scene, fill, search or _no_search, chance or random.Random(0))
    candidates = []
    for entry, why in reasons.items():
        if text := fill(entry.text).strip():
            place, depth, role = _get_position(entry)
            candidates.append(ActivatedEntry(entry, text, place, depth, role, why, count(text)))
    candidates.sort(key=lambda item: (item.entry.insertion_order, item.entry.number))
    budget = book.token_budget
    if budget is None and book.share is not None and scene.context is not None:
        budget = int(book.share * scene.context)
    inserted = _fit_budget(candidates, budget)
    within = set(inserted)
    dropped = tuple(item for item in candidates if item not in within)
    return ActivationResult(tuple(inserted), dropped, frozenset(entry.id for entry in reasons))


def _fit_budget(candidates: list[ActivatedEntry], budget: int | None) -> list[ActivatedEntry]:
    """The candidates without the least important ones, so many that the rest fits."""
    removed: set[ActivatedEntry] = set()
    total = sum(item.tokens for item in candidates)

    def importance(item: ActivatedEntry) -> tuple[float, float, int]:
        entry = item.entry
        order = entry.insertion_order
        return (order if entry.priority is None else entry.priority, order, -entry.number)

    for item in sorted(candidates, key=importance):
        if budget is None or total <= budget:
            break
        removed.add(item)
        total -= item.tokens
    return [item for item in candidates if item not in removed]


def _match_entries(
    book: Lorebook,
    scene: ScanContext,
    fill: Callable[[str], str],
    search: PatternSearch,
    chance: random.Random,
) -> dict[LorebookEntry, str]:
    """Every matching entry with the reason, in the order of matching."""
    messages = [expand_for_scan(message.text[-MAX_MESSAGE:]) for message in scene.messages]
    fold = functools.cache(str.casefold)  # each text is searched for every key
    matches: dict[LorebookEntry, str] = {}
    unlucky: set[int] = set()  # a draw that failed is not repeated within the turn
    waiting = [entry for entry in book.entries if entry.enabled]
    woken: list[str] = []  # texts of activated entries, scanned from the second round on
    for number in range(MAX_ROUNDS if book.recursive else 1):
        fresh: list[LorebookEntry] = []
        for entry in [item for item in waiting if item.number not in unlucky]:
            texts = _get_scan_window(messages, entry, book)
            more = woken if number and entry.woken_by_entries else []
            why = _get_match_reason(entry, [*texts, *more], scene, fill, search, fold)
            if why and entry.chance < 1 and chance.random() >= entry.chance:
                unlucky.add(entry.number)
            if why and entry.number not in unlucky:
                matches[entry] = why
                fresh.append(entry)
        waiting = [entry for entry in waiting if entry not in matches]
        room = MAX_WOKEN - sum(map(len, woken))
        if not fresh or room <= 0:
            break
        waking = [entry for entry in fresh if entry.wakes_entries]
        texts = [expand_for_scan(fill_names(entry.text, fill), recursive=True) for entry in waking]
        woken += [text[:room] for text in texts]
    return matches


def _get_scan_window(
    messages: Sequence[str], entry: LorebookEntry, book: Lorebook
) -> Sequence[str]:
    """The last messages, as many as the entry, else the book, says."""
    depth = entry.decorators.get("scan_depth", entry.scan_depth)
    if depth is None:
        depth = SCAN_DEPTH if book.scan_depth is None else book.scan_depth
    return messages[-int(depth) :] if isinstance(depth, int) and depth > 0 else []


def _get_match_reason(
    entry: LorebookEntry,
    texts: Sequence[str],
    scene: ScanContext,
    fill: Callable[[str], str],
    search: PatternSearch,
    fold: Callable[[str], str],
) -> str:
    """Why the entry matches: its key or decorator; "" when it does not match."""
    decorators = entry.decorators
    if "activate" in decorators:
        return "@@activate"
    if "dont_activate" in decorators:
        return ""
    before = entry.id in scene.matched_before
    if before and "dont_activate_after_match" in decorators:
        return ""
    if before and "keep_activate_after_match" in decorators:
        return "@@keep_activate_after_match"
    if not _is_timely(entry, scene):
        return ""

    def key_in(keys: Sequence[str]) -> str:
        return next(
            (key for key in keys if _is_key_in_any(fill_names(key, fill), entry, texts, fold)), ""
        )

    if entry.use_regex:
        return _search_patterns(entry, texts, search)
    if "additional_keys" in decorators and not key_in(
        _get_decorator_list(entry, "additional_keys")
    ):
        return ""
    if "exclude_keys" in decorators and key_in(_get_decorator_list(entry, "exclude_keys")):
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
    """Whether the decorators about the chat's progress (replies, greeting, icon) allow the entry."""
    decorators = entry.decorators
    replies = sum(message.role == "assistant" for message in scene.messages)
    after = decorators.get("activate_only_after")
    every = decorators.get("activate_only_every")
    greeting, icon = scene.greeting, scene.user_icon
    return not (
        (isinstance(after, int) and replies < after)
        or (isinstance(every, int) and replies % every)
        or ("ignore_on_max_context" in decorators and scene.full)
        or (greeting is not None and decorators.get("is_greeting", greeting) != greeting)
        or (icon and decorators.get("is_user_icon", icon) != icon)
    )


def _search_patterns(entry: LorebookEntry, texts: Sequence[str], search: PatternSearch) -> str:
    """The first pattern that matches; one that is invalid keeps the entry from ever matching."""
    first = ""
    for pattern in (*entry.keys, *_get_decorator_list(entry, "additional_keys")):
        for text in texts or [""]:  # without texts, an invalid pattern should still show
            hit = search(pattern, text, entry.case_sensitive)
            if hit is None:
                return ""
            if hit and text and not first:
                first = pattern
    return first


def _get_decorator_list(entry: LorebookEntry, name: str) -> tuple[str, ...]:
    value = entry.decorators.get(name)
    return value if isinstance(value, tuple) else ()


def _is_key_in_any(
    key: str, entry: LorebookEntry, texts: Sequence[str], fold: Callable[[str], str]
) -> bool:
    """Whether a plain key is in one of `texts`.

    Whole words make sense in scripts with spaces alone: a key with any non-ASCII letter is looked for
    anywhere, as Chinese needs.
    """
    if not entry.case_sensitive:
        key, texts = key.casefold(), [fold(text) for text in texts]
    if entry.whole_words and key.isascii():
        word = re.compile(rf"(?<![0-9A-Za-z_]){re.escape(key)}(?![0-9A-Za-z_])")
        return any(word.search(text) for text in texts)
    return any(key in text for text in texts)


def fill_names(text: str, fill: Callable[[str], str]) -> str:
    """`text` with {{char}} and {{user}} filled and no other macro: {{random}} and the like draw numbers,
    and scanning must not change what is drawn later.
    """
    return NAME_MACROS.sub(lambda m: fill(m[0]), text) if "{" in text or "<" in text else text


def _get_position(entry: LorebookEntry) -> tuple[str, int, str]:
    """(place, depth, role): the decorators' where there are any, else the entry's own fields."""
    decorators = entry.decorators
    role, place = str(decorators.get("role", entry.role)), decorators.get("position")
    depth = decorators.get("depth")
    if isinstance(place, str):
        return place, 0, role
    if isinstance(depth, int):
        return "depth", max(depth, 0), role
    return entry.position, entry.depth, role


def _no_search(pattern: str, text: str, case_sensitive: bool) -> bool | None:
    return None
