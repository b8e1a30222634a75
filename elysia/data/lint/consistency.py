"""Find answers that contradict each other about the character: name, maker, age, birthday, home.

Of every fact the most frequent value counts as true, and the others are reported. Values are compared
within their script, so 爱莉希雅 and Elysia do not contradict each other.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from elysia.data.lint.lint_report import LintFinding

WORD = r"[^\s，。！？,.!?、~～；;：:（(「」“”\"'’【】《》\n]"
YOU_ZH = "(?:你|您)"
MADE_ZH = "(?:创造|开发|制作|设计|训练|创建|研发|写|造|做)"
MADE_EN = "(?:made|created|built|developed|trained|wrote)"
NAME_EN = r"([A-Z][\w-]+(?: [A-Z][\w-]+)*)"
ZH_NUMBER = "[一二三四五六七八九十]{1,3}"
MONTHS = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
# fact: (what asks for it, what answers it: the first group that matches is the value)
FACTS: dict[str, tuple[str, str]] = {
    "name": (
        rf"{YOU_ZH}(?:是谁|是哪位|叫什么|叫啥|叫甚么|的名字|怎么称呼|贵姓)"
        r"|who are you|what(?:'s| is) your name|your name\?",
        rf"我(?:的名字)?(?:就|其实)?(?:是|叫做?|名叫)({WORD}{{1,12}})"
        rf"|(?:I am|I'm|I’m|[Mm]y name is|[Cc]all me) {NAME_EN}",
    ),
    "maker": (
        rf"谁{MADE_ZH}(?:了|出)?{YOU_ZH}|{YOU_ZH}(?:是|由)(?:谁|哪家公司|哪个公司){MADE_ZH}"
        rf"|who {MADE_EN} you",
        rf"(?:由|是)({WORD}{{1,20}}?)(?:团队|公司)?{MADE_ZH}|\bby {NAME_EN}|{NAME_EN} {MADE_EN} me",
    ),
    "age": (
        rf"{YOU_ZH}(?:今年)?(?:几岁|多大|多少岁|的年龄)|how old are you|your age\?",
        r"(\d{1,4}|[一二两三四五六七八九十百千]{1,6}) ?(?:周岁|岁|years old)|I(?:'m| am) (\d{1,4})\b",
    ),
    "birthday": (
        rf"{YOU_ZH}的?生日|{YOU_ZH}是?(?:什么时候|哪天|几月)出?生|your birthday|when were you born",
        rf"(\d{{1,2}}|{ZH_NUMBER})月初?(\d{{1,2}}|{ZH_NUMBER})|({MONTHS} \d{{1,2}})",
    ),
    "home": (
        rf"{YOU_ZH}(?:现在|家)?(?:住在?(?:哪|什么地方)|家在哪)|where do you live",
        rf"(?:住在|家在)({WORD}{{2,14}})|\blive (?:in|on|at) ((?:the |a )?[A-Za-z][\w' -]{{2,30}})",
    ),
}
_ASKS = {fact: re.compile(ask, re.I) for fact, (ask, _) in FACTS.items()}
_ANSWERS = {fact: re.compile(answer) for fact, (_, answer) in FACTS.items()}
LONGEST_QUESTION = 60  # characters; beyond it a question is about something else
NO_NAME = re.compile(
    r"^(?:由|一|个|你|您|谁|什么|想|要|在|来|说|不|从|很|非常|真|怎|为|被|这|那|专|the\b|an?\b)",
    re.I,
)
_NUMERALS = {ch: n for n, ch in enumerate("零一二三四五六七八九")} | {"两": 2}


class StatedFact(NamedTuple):
    """One answer: the fact, its value, and which text of the row states it."""

    fact: str
    value: str
    where: str


def extract_facts(ask: str, reply: str, where: str) -> Iterator[StatedFact]:
    """What `reply` states about the character, if `ask` asks for it."""
    if len(ask) > LONGEST_QUESTION or not any(you in ask.lower() for you in ("你", "您", "you")):
        return
    for fact, pattern in _ASKS.items():
        if pattern.search(ask) and (value := parse_fact_value(fact, reply)):
            yield StatedFact(fact, value, where)


class FactRegister:
    """What a file's answers state about the character: 16 bytes per answer, and each value once."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}  # values and places, numbered as they come
        # For each fact, in ASCII or not: four numbers per answer (value, line, row, place).
        self._answers: defaultdict[tuple[str, bool], array[int]] = defaultdict(lambda: array("I"))

    def add(self, fact: StatedFact, line: int, row: int) -> None:
        """Remember an answer."""
        value, where = (
            self._texts.setdefault(text, len(self._texts)) for text in (fact.value, fact.where)
        )
        self._answers[fact.fact, fact.value.isascii()].extend((value, line, row, where))

    def find_contradictions(self, file: str) -> Iterator[LintFinding]:
        """Every answer whose value is not the most frequent one, nor a longer or shorter form of it."""
        texts = list(self._texts)
        for (fact, _), numbers in self._answers.items():
            number, times = Counter(numbers[::4]).most_common(1)[0]
            true, answers = texts[number], len(numbers) // 4
            for at in range(0, len(numbers), 4):
                value, line, row, where = numbers[at : at + 4]
                if texts[value] not in true and true not in texts[value]:
                    what = f"says that the {fact} is {texts[value]}; {times} of {answers} answers say {true}"
                    yield LintFinding("contradiction", file, line, row, texts[where], what)


def parse_fact_value(fact: str, reply: str) -> str:
    """The value that a reply gives to a fact, normalized; "" when it gives none.

    >>> parse_fact_value("age", "我今年二十三岁啦"), parse_fact_value("age", "I am 23 years old.")
    ('23', '23')
    >>> parse_fact_value("name", "我叫爱莉希雅，请多关照"), parse_fact_value("name", "我是由谁做的呢")
    ('爱莉希雅', '')
    """
    for match in _ANSWERS[fact].finditer(reply):
        groups = [group for group in match.groups() if group]
        if not groups or (fact == "name" and NO_NAME.match(groups[0])):
            continue
        if fact in ("age", "birthday"):
            groups = [_number(group) for group in groups]
        value = unicodedata.normalize("NFKC", " ".join(groups)).lower().strip()
        return re.sub(r"[哦呀啦呢哟喔]+$", "", value)
    return ""


def _number(text: str) -> str:
    """Chinese numerals below a hundred as digits; anything else unchanged."""
    if not set(text) <= {*_NUMERALS, "十"}:
        return text
    if "十" not in text:
        return "".join(str(_NUMERALS[ch]) for ch in text)
    tens, _, ones = text.partition("十")
    return str(10 * (_NUMERALS[tens] if tens else 1) + (_NUMERALS[ones] if ones else 0))
