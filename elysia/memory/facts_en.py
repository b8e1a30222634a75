"""Facts in an English sentence: which pattern fills which slot.

Knows nothing of other languages or of where facts are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from elysia.memory import patterns_en as en
from elysia.memory.facts import Fact, about
from elysia.memory.when import day_of, spans


def facts_en(sentence: str, asked: bool, at: float) -> Iterator[Fact]:
    """The facts of one sentence. `asked`: it ends in a question mark; `at`: when it was said."""
    sentence = sentence.replace("’", "'")
    if sentence == sentence.lower():
        sentence = en.SMALL.sub(lambda hit: f"{hit[1]} {hit[2].upper()}", sentence)
        sentence = re.sub(r"\bi\b", "I", sentence)
    if en.SUPPOSED.search(sentence):
        return
    clauses = [part.strip(" ,") for part in en.CLAUSES.split(sentence) if part.strip(" ,")]
    for place, clause in enumerate(clauses):
        if en.REPORTED.search(clause):
            return
        body = en.FILLER.sub("", clause).strip(" ,!")
        if (asked and place == len(clauses) - 1) or en.ASKS.search(body) or en.PAST.search(body):
            continue
        yield from _of_oneself(body)
        yield from _of_people(body, sentence)
        yield from _plans(body, at)


def _of_oneself(clause: str) -> Iterator[Fact]:
    for pattern, slot, importance in en.RULES:
        hit = pattern.search(clause)
        # "I'm Nora, I teach" was divided; "I'm Nora the brave" is a joke.
        if hit and not (slot in ("name", "called") and en.NOT_NAME.search(hit["name"])):
            yield Fact(slot, clause, importance)
            return
    for pattern, kind, importance in (
        (en.ALLERGY, "allergy", 0.95),
        (en.ILL, "health", 0.9),
        (en.ACHING, "health", 0.7),
        (en.LANGUAGE, "language", 0.7),
    ):
        if hit := pattern.search(clause):
            what = next(part for part in hit.groups() if part)
            yield Fact(f"{kind}:{about(en.TAIL.sub('', what))}", clause, importance)
            return
    yield from _tastes(clause)


def _tastes(clause: str) -> Iterator[Fact]:
    if hit := en.FAVOURITE.search(clause):
        yield Fact(f"favourite:{about(hit['kind'])}", clause, 0.75)
        return
    if hit := en.REFUSED.search(clause):
        yield Fact(f"taste:{about(en.TAIL.sub('', hit['thing']))}", clause, 0.75)
        return
    if hit := en.TASTE.search(clause) or en.STANCE.search(clause):
        for thing in _listed(hit):
            yield Fact(f"taste:{_object(thing)}", clause[: hit.start("thing")] + thing, 0.7)
    elif hit := en.HABIT.search(clause):
        # What somebody drinks a lot of and what they gave up are one thing.
        slot = f"taste:{_object(hit['thing'])}" if hit["take"] else f"habit:{about(hit['verb'])}"
        yield Fact(slot, clause, 0.6)
    elif hit := en.STOPPED.search(clause):
        deed = about(hit["what"]).split()[0]
        yield Fact(f"habit:{deed}", clause, 0.6, against=deed)


def _listed(hit: re.Match[str]) -> Iterator[str]:
    """What is liked: one thing, or several with commas between them."""
    whole = en.TAIL.sub("", hit["thing"])
    to_do = "to" in hit.re.groupindex and hit["to"]
    for thing in [re.split(",| and ", whole)[0]] if to_do else en.SPLIT.split(whole):
        if not thing or en.HOLLOW.search(thing) or len(thing.split()) > 5:
            return  # no list any more
        yield thing


def _object(thing: str) -> str:
    thing = re.sub(
        r"^(?:eating|drinking|watching|reading|playing|listening to|doing|to \w+|going to)\s+",
        "",
        thing.strip(),
    )
    return about(en.TAIL.sub("", thing))


def _of_people(clause: str, sentence: str) -> Iterator[Fact]:
    for pattern in (en.PET, en.MY_PET):
        hit = pattern.search(clause)
        if hit and not re.search(r"\b(?:not|never|don't|want)\b", clause[: hit.end()]):
            yield Fact(f"pet:{hit['name'] or hit['kind']}", hit.group().strip(), 0.85)
            return
    if hit := en.GONE.search(clause):
        pet = re.fullmatch(en.PETS, hit["rel"])
        slot = "pet:*" if pet else f"family:{hit['rel']}:gone"
        yield Fact(slot, clause, 0.9, against=hit["rel"] if pet else None)
    elif hit := en.PET_GONE.search(clause):
        yield Fact(f"pet:{hit['name']}", clause, 0.85, against=hit["name"])
    elif hit := en.RELATION.search(clause):
        if not en.NOT_NAME.search(hit["name"]):
            yield _relative(hit["rel"], hit["name"])
    elif hit := en.PRONOUN.search(clause):
        before = list(en.MENTIONED.finditer(sentence))
        if before:
            yield _relative(before[-1]["rel"], hit["name"])


def _relative(relation: str, name: str) -> Fact:
    text = f"My {relation} is called {name}"
    if re.fullmatch(en.PARTNERS, relation):
        return Fact("partner", text, 0.9)
    if re.fullmatch(en.PETS, relation):
        return Fact(f"pet:{name}", text, 0.85)
    if re.fullmatch(en.OTHERS, relation):
        return Fact(f"acquaintance:{relation}:{name}", text, 0.6)
    # There may be two sisters, but only one mother.
    one = relation in ("mother", "mum", "mom", "father", "dad")
    kin = {"mum": "mother", "mom": "mother", "dad": "father"}.get(relation, relation)
    return Fact(f"family:{kin}:name" if one else f"family:{kin}:{name}", text, 0.85)


def _plans(clause: str, at: float) -> Iterator[Fact]:
    if hit := en.CANCELLED.search(clause):
        yield Fact("plan:*", clause, 0.75, against=(hit["a"] or hit["b"]).split()[-1])
        return
    days = [span for span in spans(clause, at, ahead=True) if span.last > day_of(at)]
    if not days:
        return
    if hit := en.EVENT.search(clause):
        event = about(hit["event"]).split()
        if event and event[0] not in ("i", "we", "he", "she", "they", "it"):
            yield Fact(f"plan:{event[-1]}", dated(clause, at), 0.8)
            return
    if en.PLAN.search(clause):
        rest = en.PLAN.sub("", clause).replace(days[0].words, "")
        words = [word for word in about(rest).split() if len(word) > 2 and word != "for"]
        words = words or about(clause.replace(days[0].words, "")).split()[1:]
        if words and not re.search(r"\b(?:talk|chat|speak)\b|\bsee you\b", clause):
            yield Fact(f"plan:{' '.join(words[:3])}", dated(clause, at), 0.75)


def dated(text: str, at: float) -> str:
    """`text` with the day it means, where its words will mean another one tomorrow."""
    for span in spans(text, at, ahead=True):
        if not re.search(r"\d", span.words) or "ago" in span.words:
            day = f"{span.first}" if span.first == span.last else f"{span.first} to {span.last}"
            return f"{text} ({day})"
    return text
