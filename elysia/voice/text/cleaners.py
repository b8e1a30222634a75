"""A normalised text in the symbols that a model was trained on.

`CLEANERS` names each writing as VITS's configs do. What a writing cannot say is left out and
counted, never silently. Knows nothing of models; `recognise` looks only at a list of symbols.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from elysia.core.errors import VoiceError
from elysia.voice.text import spans
from elysia.voice.text.english import word_sounds
from elysia.voice.text.mandarin import words
from elysia.voice.text.symbols import LETTERS, bopomofo, english_ipa, ipa, pinyin_of

_WIDE = str.maketrans(",.!?;:、；：-~～", "，。！？，，，，，—……", "'’")
_NARROW = str.maketrans("，。！？；：、—～;:", ",.!?,,,-~,,")
_QUOTES = re.compile(r"[\"“”‘’「」『』《》〈〉()（）\[\]【】·•/\\]")
_WORD = re.compile(r"[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f'’]*")

# More of a text than this lost, and a writing is not the model's.
MOST_DROPPED = 0.05


@dataclass(frozen=True)
class Cleaned:
    """Symbols to be said, and the stretches of text that this writing has no symbols for."""

    symbols: str
    unsaid: tuple[str, ...] = ()


def clean(text: str, cleaner: str, *, sandhi: bool = True) -> Cleaned:
    """`text`, normalised, through one of CLEANERS. VoiceError for a name that is none of them."""
    if cleaner not in CLEANERS:
        raise VoiceError(f"There is no cleaner '{cleaner}', only {', '.join(CLEANERS)}.")
    return CLEANERS[cleaner](_QUOTES.sub("", text), sandhi)


def chinese_cleaners(text: str, sandhi: bool = True) -> Cleaned:
    """Bopomofo with tone marks, a blank before each word; Latin letters by their names.

    >>> chinese_cleaners("你好，世界").symbols
    'ㄋㄧˊㄏㄠˇ， ㄕˋㄐㄧㄝˋ。'
    """
    said, unsaid = "", []
    for span in spans.split(text):
        if span.language in ("zh", "en"):
            said += _bopomofo(span.text, sandhi, bool(said))
        else:
            unsaid.append(span.text)
    said = re.sub(r"([ˉˊˇˋ˙])$", r"\1。", re.sub(r"\s+", " ", said).strip())
    return Cleaned(said, tuple(unsaid))


def _bopomofo(text: str, sandhi: bool, inside: bool) -> str:
    said = ""
    for word in words(text.translate(_WIDE), sandhi=sandhi):
        if word.syllables:
            blank = " " if said or inside else ""
            said += blank + "".join(map(bopomofo, word.syllables))
        else:
            said += "".join(LETTERS.get(char.lower(), char) for char in word.text)
    return said


def cjke_cleaners2(text: str, sandhi: bool = True) -> Cleaned:
    """IPA: Chinese syllables with arrows for tones, English words from the dictionary.

    >>> cjke_cleaners2("你好，world!").symbols
    'ni↑xɑʊ↓↑, wəɹɫd!'
    """
    said, unsaid = "", []
    for span in spans.split(text):
        if span.language == "zh":
            said += _chinese_ipa(span.text, sandhi) + " "
        elif span.language == "en":
            said += _english(span.text, lambda word: english_ipa(word_sounds(word))) + " "
        else:
            unsaid.append(span.text)
    return Cleaned(_ended(said), tuple(unsaid))


def _chinese_ipa(text: str, sandhi: bool) -> str:
    said = ""
    for word in words(text.translate(_NARROW), sandhi=sandhi):
        blank = " " if said and word.syllables and not said.endswith(" ") else ""
        said += blank + ("".join(map(ipa, word.syllables)) if word.syllables else word.text)
    return said.strip()


def _english(text: str, say: Callable[[str], str]) -> str:
    return _WORD.sub(lambda found: say(found[0]), text.translate(_NARROW)).strip()


def pinyin_cleaners(text: str, sandhi: bool = True) -> Cleaned:
    """Pinyin with tone digits, a blank between syllables; English as its letters.

    Some forks give the name chinese_cleaners to this; `recognise` tells them apart by the symbols.

    >>> pinyin_cleaners("你好。").symbols
    'ni2 hao3.'
    """
    said: list[str] = []
    unsaid = []
    for span in spans.split(text):
        if span.language not in ("zh", "en"):
            unsaid.append(span.text)
            continue
        for word in words(span.text.translate(_NARROW).replace("'", ""), sandhi=sandhi):
            if word.syllables:
                said += [f" {pinyin_of(part.bopomofo)}{part.tone}" for part in word.syllables]
            else:
                said.append(word.text.lower())
    return Cleaned(_ended("".join(said).strip()), tuple(unsaid))


def _ended(said: str) -> str:
    said = re.sub(r" +(?=[,.!?…~-])", "", re.sub(r"\s+", " ", said)).strip()
    said = re.sub(r"([,.!?…])(?=[^\s,.!?…~-])", r"\1 ", said)
    return said if not said or said[-1] in ",.!?-…~" else said + "."


CLEANERS: dict[str, Callable[[str, bool], Cleaned]] = {
    "chinese_cleaners": chinese_cleaners,
    "cjke_cleaners2": cjke_cleaners2,
    "pinyin": pinyin_cleaners,
}

_SAMPLES = (
    "你好，我是你的数字分身，很高兴认识你。",
    "今天天气不错，我们一起去公园散步，好不好？",
    "请把这句话读给他听！女儿和儿子都睡觉了，月亮出来了。",
    "四十四只石狮子，热闹的日子，资料词典，旅行率领，穷人雄伟。",
)


def dropped(text: str, cleaner: str, symbols: Collection[str]) -> tuple[float, str]:
    """What share of `text`'s symbols a model without them would lose, and which, most first."""
    known = set(symbols)
    said = clean(text, cleaner).symbols
    lost = [char for char in said if char not in known]
    names = "".join(sorted(set(lost), key=lost.count, reverse=True))
    return (len(lost) / len(said) if said else 0.0), names


def recognise(symbols: Collection[str], named: str = "") -> str:
    """The cleaner that writes in `symbols`; the one a config names, where it fits.

    Raises VoiceError, with the share lost and the symbols, when none fits.
    """
    text = "".join(_SAMPLES)
    order = sorted(CLEANERS, key=lambda name: (name != named, dropped(text, name, symbols)[0]))
    for name in order:
        if dropped(text, name, symbols)[0] <= MOST_DROPPED:
            return name
    best = min(CLEANERS, key=lambda name: dropped(text, name, symbols)[0])
    share, lost = dropped(text, best, symbols)
    raise VoiceError(
        f"The checkpoint's {len(symbols)} symbols fit no cleaner: even {best} would lose {share:.0%} "
        f"of a Chinese text ({lost[:20]}). Its config names '{named or 'none'}'; give the config "
        "that the checkpoint was trained with."
    )
