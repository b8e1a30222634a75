"""Text analysis for search: folds spellings, splits a text into terms, counts the words that carry content.

Full and half width, upper and lower case, accents, and simplified and traditional characters are
folded. Han, kana and hangul, which are written without spaces, give single characters and pairs of
neighbours; every other script gives words; where the two touch ("1786年"), they give a pair as well.
Adding jieba's words, or groups of three characters, did not improve recall (`benchmarks/knowledge.py`).
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from functools import cache, lru_cache
from typing import Any

MAX_TERM_LENGTH = 64  # characters of a word that count; longer ones are base64 and the like
SINGLE_CHARACTER_WEIGHT = 0.35  # a Chinese character alone, relative to a pair

_UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"([{_UNSPACED}]+)|((?:(?![{_UNSPACED}])[^\W_])+(?:'[a-z]+)?)")
_ACCENTED = re.compile("[\u00c0-\u024f\u1e00-\u1eff]")
_SURROGATES = re.compile(
    "[\ud800-\udfff]"
)  # halves of a character; they cannot be encoded as UTF-8
# Removed from (folded) questions: documents rarely contain them, so BM25 would rate them as telling.
_QUESTION_WORDS = re.compile(
    "为什么|什么|甚么|怎么样|怎么|怎样|如何|多少|哪里|哪儿|哪个|哪些|哪一|请问|何时|何地|何人|何处|何者"
)
_QUESTION_PARTICLES = frozenset("谁何吗呢几是的哪")
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
_converter_lock = threading.Lock()


def extract_terms(text: str) -> list[str]:
    """The terms of a text, in order, each as often as it occurs.

    >>> extract_terms("軟體 Ｇarden")
    ['软', '软体', '体', 'garden']
    """
    return _split_terms(fold_text(text))


def extract_query_terms(question: str) -> list[str]:
    """The terms of a question that an answer would contain; all of them if none would be left.

    >>> extract_query_terms("玫瑰是什么颜色的？")
    ['玫', '玫瑰', '瑰', '瑰是', '颜', '颜色', '色', '色的']
    """
    text = fold_text(question)
    terms = [
        term
        for term in _split_terms(_QUESTION_WORDS.sub(" ", text))
        if term not in _QUESTION_PARTICLES
    ]
    return terms or _split_terms(text)


def fold_text(text: str) -> str:
    """The text with every spelling that readers take for the same written in one way.

    >>> fold_text("Ｃafé 愛莉")
    'cafe 爱莉'
    """
    text = unicodedata.normalize("NFKC", _SURROGATES.sub(" ", text)).casefold().replace("’", "'")
    text = _ACCENTED.sub(lambda match: unicodedata.normalize("NFKD", match.group())[0], text)
    # opencc's converter is C++ that promises nothing about threads; a call takes microseconds.
    with _converter_lock:
        return str(_load_converter().convert(text))


def _split_terms(text: str) -> list[str]:
    terms: list[str] = []
    before: re.Match[str] | None = None
    for run in _RUN.finditer(text):
        unspaced, word = run.groups()
        if before is not None and before.end() == run.start():
            terms.append(_edge_term(before, -1) + _edge_term(run, 0))
        before = run
        if word:
            terms.append(word[:MAX_TERM_LENGTH])
            continue
        last = len(unspaced) - 1
        for position, character in enumerate(unspaced):
            terms.append(character)
            if position < last:
                terms.append(unspaced[position : position + 2])
    return terms


def _edge_term(run: re.Match[str], position: int) -> str:
    """The part of a run that touches its neighbour: a whole word, or one unspaced character."""
    return str(run[2][:MAX_TERM_LENGTH]) if run[2] else str(run[1][position])


@cache
def _load_converter() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")


@lru_cache(maxsize=4_000)
def count_content_words(text: str) -> Counter[str]:
    """How often each content word occurs in a text; stop words are left out.

    English words are stemmed. Of Chinese, pairs of characters and single characters are counted;
    see `term_weight`.
    """
    counts: Counter[str] = Counter()
    for term in extract_terms(text):
        if term.isascii():
            word = stem(term)
            if not {term, word} & STOP_WORDS and (len(term) > 1 or term.isdigit()):
                counts[word] += 1
        elif not set(term) <= STOP_CHARACTERS:
            counts[term] += 1
    return counts


def term_weight(word: str) -> float:
    """What a word counts for, relative to others that are as rare."""
    return SINGLE_CHARACTER_WEIGHT if len(word) == 1 and not word.isascii() else 1.0


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """An English word without its ending; any other word unchanged.

    >>> stem("travelling"), stem("旅行")
    ('travel', '旅行')
    """
    return str(_load_stemmer().analyze(word)[0]) if word.isascii() and word.isalpha() else word


@cache
def _load_stemmer() -> Any:
    import tantivy

    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw())
    return builder.filter(tantivy.Filter.stemmer("english")).build()
