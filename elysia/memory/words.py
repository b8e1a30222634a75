"""The words of a text that say what it is about, and what each is worth.

English words without their endings; Chinese as pairs of characters, which say more than single ones.
Knows nothing of memories.
"""

from __future__ import annotations

from collections import Counter
from functools import cache, lru_cache
from typing import Any

from elysia.retrieval.words import terms

SINGLE = 0.35  # a Chinese character alone, against a pair

_EMPTY = (
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
EMPTY = frozenset(_EMPTY.split())
EMPTY_HAN = frozenset(
    "我你您他她它们的了吗呢吧啊呀哦是在有和跟与就都也还又很把被给对从到说叫什么怎样哪谁几多少这那个不没要会能可以之过着得地么为因所"
)


@lru_cache(maxsize=4_000)
def content(text: str) -> Counter[str]:
    """How often each word stands in a text; those that every text has are left out."""
    found: Counter[str] = Counter()
    for term in terms(text):
        if term.isascii():
            word = stem(term)
            if not {term, word} & EMPTY and (len(term) > 1 or term.isdigit()):
                found[word] += 1
        elif not set(term) <= EMPTY_HAN:
            found[term] += 1
    return found


def worth(word: str) -> float:
    """What a word counts for beside others that are as rare."""
    return SINGLE if len(word) == 1 and not word.isascii() else 1.0


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """An English word without its ending; any other as it is.

    >>> stem("travelling"), stem("旅行")
    ('travel', '旅行')
    """
    return str(_stemmer().analyze(word)[0]) if word.isascii() and word.isalpha() else word


@cache
def _stemmer() -> Any:
    import tantivy

    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw())
    return builder.filter(tantivy.Filter.stemmer("english")).build()
