"""A text as the terms that a search compares: one spelling for what people write in several.

Full and half width, large and small letters, accents, and simplified and traditional characters are
folded. Han, kana and hangul, which stand without spaces, give each character and each pair of
neighbours; everything else gives words; where the two touch ("1786年"), they give a pair, too.
jieba's words on top of these, and groups of three, found no more (`benchmarks/knowledge.py`).
Knows nothing of indexes or scores.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from functools import cache, lru_cache
from typing import Any

MAX_TERM_LENGTH = 64  # characters of a word that count; longer ones are base64 and the like

_UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"([{_UNSPACED}]+)|((?:(?![{_UNSPACED}])[^\W_])+(?:'[a-z]+)?)")
_ACCENTED = re.compile("[\u00c0-\u024f\u1e00-\u1eff]")
_SURROGATES = re.compile("[\ud800-\udfff]")  # of a character; no text in UTF-8 has them
# Of folded questions. Texts seldom ask, so BM25 would take these for telling.
_QUESTION_WORDS = re.compile(
    "为什么|什么|甚么|怎么样|怎么|怎样|如何|多少|哪里|哪儿|哪个|哪些|哪一|请问|何时|何地|何人|何处|何者"
)
_QUESTION_PARTICLES = frozenset("谁何吗呢几是的哪")
_converter_lock = threading.Lock()


def extract_terms(text: str) -> list[str]:
    """The terms of a text, in order, repeated as often as they stand there.

    >>> extract_terms("軟體 Ｇarden")
    ['软', '软体', '体', 'garden']
    """
    return _split_terms(fold_text(text))


def extract_query_terms(question: str) -> list[str]:
    """The terms of a question that tell its answer: those that only ask are left out, if others stay.

    >>> extract_query_terms("玫瑰是什么颜色的？")
    ['玫', '玫瑰', '瑰', '瑰是', '颜', '颜色', '色', '色的']
    """
    text = fold_text(question)
    found = [
        term
        for term in _split_terms(_QUESTION_WORDS.sub(" ", text))
        if term not in _QUESTION_PARTICLES
    ]
    return found or _split_terms(text)


def fold_text(text: str) -> str:
    """The text with everything that readers take for the same written the same way.

    >>> fold_text("Ｃafé 愛莉")
    'cafe 爱莉'
    """
    text = unicodedata.normalize("NFKC", _SURROGATES.sub(" ", text)).casefold().replace("’", "'")
    text = _ACCENTED.sub(lambda hit: unicodedata.normalize("NFKD", hit.group())[0], text)
    # opencc's converter is C++ that says nothing of threads; it takes microseconds.
    with _converter_lock:
        return str(_load_converter().convert(text))


def _split_terms(text: str) -> list[str]:
    found: list[str] = []
    before: re.Match[str] | None = None
    for run in _RUN.finditer(text):
        unspaced, word = run.groups()
        if before is not None and before.end() == run.start():
            found.append(_edge_term(before, -1) + _edge_term(run, 0))
        before = run
        if word:
            found.append(word[:MAX_TERM_LENGTH])
            continue
        last = len(unspaced) - 1
        for place, character in enumerate(unspaced):
            found.append(character)
            if place < last:
                found.append(unspaced[place : place + 2])
    return found


def _edge_term(run: re.Match[str], place: int) -> str:
    """What of a run stands next to another: a whole word, or one character."""
    return str(run[2][:MAX_TERM_LENGTH]) if run[2] else str(run[1][place])


@cache
def _load_converter() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")


SINGLE_CHARACTER_WEIGHT = 0.35  # a Chinese character alone, against a pair

_STOP_WORDS = (
    "a an the of to in on at for from with by about as is are was were be been being am do "
    "does did done have has had i me my mine we us our you your yours he him his she her it "
    "its they them their this that these those what which who whom whose when where why how "
    "and or but so if then than not no yes can could will would shall should may might must "
    "there here just very really also too some any all more most much many such own same only "
    "again ever still i'm i've i'd i'll it's that's what's don't didn't can't isn't wasn't "
    "won't you're hello hi hey please tell told remember said say mention mentioned thing "
    "things something get got go went going one lot like know think feel want let make made "
    "time "
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
STOP_CHARACTERS = frozenset(
    "我你您他她它们的了吗呢吧啊呀哦是在有和跟与就都也还又很把被给对从到说叫什么怎样哪谁几多少这那个不没要会能可以之过着得地么为因所"
)


@lru_cache(maxsize=4_000)
def count_content_words(text: str) -> Counter[str]:
    """How often each word stands in a text; those that every text has are left out."""
    found: Counter[str] = Counter()
    for term in extract_terms(text):
        if term.isascii():
            word = stem(term)
            if not {term, word} & STOP_WORDS and (len(term) > 1 or term.isdigit()):
                found[word] += 1
        elif not set(term) <= STOP_CHARACTERS:
            found[term] += 1
    return found


def term_weight(word: str) -> float:
    """What a word counts for beside others that are as rare."""
    return SINGLE_CHARACTER_WEIGHT if len(word) == 1 and not word.isascii() else 1.0


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """An English word without its ending; any other as it is.

    >>> stem("travelling"), stem("旅行")
    ('travel', '旅行')
    """
    return str(_load_stemmer().analyze(word)[0]) if word.isascii() and word.isalpha() else word


@cache
def _load_stemmer() -> Any:
    import tantivy

    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw())
    return builder.filter(tantivy.Filter.stemmer("english")).build()
