"""Facts in a Chinese sentence: which pattern fills which slot.

Knows nothing of other languages or of where facts are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from elysia.memory import patterns_zh as zh
from elysia.memory.facts import Fact, about
from elysia.memory.when import day_of, spans


def facts_zh(sentence: str, asked: bool, at: float) -> Iterator[Fact]:
    """The facts of one sentence. `asked`: it ends in a question mark; `at`: when it was said."""
    if zh.SUPPOSED.search(sentence):
        return
    yield from _pets(sentence)
    clauses = [part.strip() for part in re.split(r"[，,]", sentence) if part.strip()]
    mine = False
    for place, clause in enumerate(clauses):
        if zh.REPORTED.search(clause) and not clause.startswith("我最"):
            yield from _beside(clause)
            return  # what follows are somebody's words
        if (asked and place == len(clauses) - 1) or zh.ASKS.search(clause):
            mine = False
            continue
        body = zh.FILLER.sub("", clause)
        if mine and not body.startswith("我") and _is_carried(body):
            body = "我" + body
        yield from _of_people(body, sentence, at)
        mine = body.startswith("我") and not zh.SOMEBODY.match(body)
        if mine:
            yield from _of_oneself(body)
            mine = not zh.OTHER.search(body)
        yield from _plans(body, at)


def _is_carried(body: str) -> bool:
    return bool(zh.CARRIED.search(body) or re.match(zh.SCHOOL, body))


def _of_oneself(clause: str) -> Iterator[Fact]:
    rest = clause[1:]
    for pattern, slot, importance, check in zh.RULES:
        hit = pattern.search(rest)
        if hit and (check is None or check(rest, hit)):
            yield Fact(slot.replace("*", rest.lstrip("会")[:8]), clause, importance)
            break
    for pattern, kind, importance in (
        (zh.ALLERGY, "allergy", 0.95),
        (zh.ILL, "health", 0.9),
        (zh.ACHING, "health", 0.7),
        (zh.LANGUAGE, "language", 0.7),
    ):
        if (hit := pattern.search(rest)) and not zh.WISHED.search(rest.replace("会", "")):
            yield Fact(f"{kind}:{about(hit['what'].lstrip('对'))}", clause, importance)
            return
    yield from _tastes(clause, rest)


def _tastes(clause: str, rest: str) -> Iterator[Fact]:
    if zh.TODAY.search(rest) or zh.PAST.search(rest):
        return
    hit = zh.TASTE.search(rest) or zh.REFUSED.search(rest)
    if hit:
        lead = clause[: hit.start("thing") + 1]
        for thing in re.split(
            r"、|还有|以及|(?<=[\u4e00-\u9fff]{2})[和跟与](?=[\u4e00-\u9fff]{2})", hit["thing"]
        ):
            if not zh.NO_THING.search(thing):
                whole = clause if thing == hit["thing"] else lead + thing
                yield Fact(f"taste:{about(_bare(thing))}", whole, 0.7)
        return
    if hit := zh.HABIT.search(rest):
        yield Fact(f"habit:{_deed(hit['what'])}", clause, 0.6)
    elif hit := zh.STOPPED.search(rest):
        deed = _deed(hit["what"])
        yield Fact(f"habit:{deed}", clause, 0.6, against=deed)


def _bare(thing: str) -> str:
    return re.sub(rf"^(?:{zh.DO})(?=[\u4e00-\u9fff]{{2}})|(?:了|的|啊|呀)$", "", thing)


def _deed(what: str) -> str:
    what = zh.DAYTIME.sub("", what)
    return what[:1] if what[:1] not in zh.HOLLOW else what[:4]


def _pets(sentence: str) -> Iterator[Fact]:
    for pattern in (zh.PET, zh.MY_PET):
        hit = pattern.search(sentence)
        if hit and not re.search(r"想|打算|没有?|不", sentence[: hit.end()]):
            yield Fact(f"pet:{hit['name'] or hit['kind']}", hit.group().rstrip("，, "), 0.85)
            return


def _beside(clause: str) -> Iterator[Fact]:
    if hit := zh.BESIDE.search(clause):
        yield _relative(hit["rel"], hit["name"])


def _relative(relation: str, name: str) -> Fact:
    if re.fullmatch(zh.PARTNERS, relation):
        return Fact("partner", f"我{relation}叫{name}", 0.9)
    if re.fullmatch(zh.OTHERS, relation):
        return Fact(f"acquaintance:{relation}:{name}", f"我{relation}叫{name}", 0.6)
    return Fact(f"family:{relation[:1]}:name", f"我{relation}叫{name}", 0.85)


def _of_people(clause: str, sentence: str, at: float) -> Iterator[Fact]:
    if (hit := zh.CALLED.search(clause)) and not zh.BAD_NAME.search(hit["name"]):
        yield Fact("called", clause, 0.9)
    elif hit := zh.RELATION.search(clause):
        fact = _relative(hit["rel"], hit["name"])
        yield Fact(fact.slot, clause, fact.importance)
    elif hit := zh.PRONOUN.search(clause):
        before = list(zh.MENTIONED.finditer(sentence[: sentence.index(clause)]))
        if before:
            yield _relative(before[-1]["rel"], hit["name"])
    elif hit := zh.BIRTHDAY.search(clause):
        relation, day = hit["rel"] or hit["rel2"], hit["day"] or hit["day2"]
        if spans(day, at, ahead=True):
            slot = f"family:{relation[:1]}:birthday" if relation else "birthday"
            yield Fact(slot, dated(clause, at), 0.85)
    else:
        yield from _beside(clause)
    if hit := zh.FAMILY_GONE.search(clause):
        yield Fact(f"family:{hit['rel'][:1]}:gone", clause, 0.9)
    elif hit := zh.PET_GONE.search(clause):
        yield Fact(f"pet:{hit['name']}", clause, 0.85, against=hit["name"])


def _plans(clause: str, at: float) -> Iterator[Fact]:
    if hit := zh.MOVED.search(clause):
        if spans(hit.group(), at, ahead=True):
            event = re.sub("^(?:我的?|这次|那个)", "", hit["event"])
            yield Fact(f"plan:{event[-2:]}", dated(clause, at), 0.8)
        return
    if hit := zh.CANCELLED.search(clause):
        event = (hit["a"] or hit["b"])[-2:]
        yield Fact("plan:*", clause, 0.75, against=event)
        return
    days = [span for span in spans(clause, at, ahead=True) if span.last > day_of(at)]
    what = zh.EVENT.search(clause)
    if days and what and "我" in clause[:12] and zh.PLANNED.search(clause):
        yield Fact(f"plan:{what.group()}", dated(clause, at), 0.75)


def dated(text: str, at: float) -> str:
    """`text` with the day it means, where its words will mean another one tomorrow."""
    for span in spans(text, at, ahead=True):
        if (
            not any(mark in span.words for mark in "日号")
            or "月" not in span.words
            or "个月" in span.words
        ):
            day = f"{span.first}" if span.first == span.last else f"{span.first} ~ {span.last}"
            return f"{text}（{day}）"
    return text
