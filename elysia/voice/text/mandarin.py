"""Chinese words become syllables with tones as they are spoken.

Words come from jieba, readings from pypinyin's phrases; tone sandhi is ours: 一, 不, and third
tones in a row. Knows nothing of symbols that a model takes.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from elysia.voice.text.readings import LIGHT, READINGS
from elysia.voice.text.strip import HAN

_RUN = re.compile(f"([{HAN}]+)")
_NUMERALS = set("零〇一二三四五六七八九十幺")
_ORDINAL_BEFORE = set("第初")
_ORDINAL_AFTER = ("月", "号", "楼", "等奖", "等功", "级", "年级", "班", "把手", "线城", "中")
_WHO = "我 你 他 她 它 您 我们 你们 他们 她们 咱们 谁 就 还 也 都 总 可 又 非 只 先 人 今天 明天"
_WHO_MUST = set(_WHO.split())
_MUCH = "很 太 多 好 更 真 最 不 挺 这么 那么 多么 非常 有点 米 公里 厘米 一样"
_HOW_MUCH = set(_MUCH.split())
_GIVEN = set("给钱书债款清")
_PLACES = set("原土草基各该此本当当场外内陆")  # 原地 and the like, where 地 is ground
_LOADING = threading.Lock()


@dataclass
class Syllable:
    """One Han character as it is said: pinyin in bopomofo without tone, and a tone, 1 to 5."""

    char: str
    bopomofo: str
    tone: int


@dataclass(frozen=True)
class Word:
    """A word and its syllables; what is not Han has none and is kept as it is."""

    text: str
    syllables: tuple[Syllable, ...] = ()


def words(text: str, *, sandhi: bool = True) -> list[Word]:
    """The words of `text` in order, tones as spoken (or, without `sandhi`, as the dictionary has it).

    >>> ["".join(f"{s.bopomofo}{s.tone}" for s in w.syllables) for w in words("你好")]
    ['ㄋㄧ2ㄏㄠ3']
    """
    found: list[Word] = []
    for part in _RUN.split(text):
        if not part:
            continue
        if not _RUN.match(part):
            found.append(Word(part))
            continue
        phrase = [Word(word, _syllables(word)) for word in _cut(part)]
        _read_particles(phrase)
        if sandhi:
            _apply_yi_and_bu(phrase)
            _apply_third_tones(phrase)
        found += phrase
    return found


def _syllables(word: str) -> tuple[Syllable, ...]:
    said = tuple(
        Syllable(char, *_sound(reading))
        for char, reading in zip(word, _readings(word), strict=True)
    )
    if word in LIGHT:
        said[-1].tone = 5
    return said


@lru_cache(maxsize=8192)
def _readings(word: str) -> tuple[str, ...]:
    """Pinyin with tone marks, one a character."""
    from pypinyin import Style, lazy_pinyin

    if word in READINGS:
        return tuple(READINGS[word].split())
    said: list[str] = lazy_pinyin(word, style=Style.TONE, errors="ignore")
    return tuple(said) if len(said) == len(word) else tuple(_alone(char) for char in word)


def _alone(char: str) -> str:
    from pypinyin import Style, lazy_pinyin

    said: list[str] = lazy_pinyin(char, style=Style.TONE, errors="ignore")
    return said[0] if said else ""


@lru_cache(maxsize=2048)
def _sound(reading: str) -> tuple[str, int]:
    """Bopomofo without its tone mark, and the tone."""
    from pypinyin import Style
    from pypinyin.style import convert

    marks = {"ˊ": 2, "ˇ": 3, "ˋ": 4, "˙": 5}
    said = convert(reading, Style.BOPOMOFO, strict=True, default="") if reading else ""
    if said and said[-1] in marks:
        return said[:-1], marks[said[-1]]
    toneless = bool(said) and reading.isascii()
    return said, 5 if toneless else 1


def _read_particles(phrase: list[Word]) -> None:
    """One-character words whose sound their neighbours decide.

    得, 地 and 着 are particles, but 得 is must (děi) behind who has to; 只 is a measure (zhī)
    behind a number; 长 is long (cháng) behind how much; 还 gives back (huán) before what is given.
    """
    before = ""
    for here, word in enumerate(phrase):
        last = here == len(phrase) - 1
        after = "" if last else phrase[here + 1].text
        if word.text == "得":
            must = before in _WHO_MUST and not last
            _say(word, "děi" if must else "de")
        elif word.text == "地" and len(before) > 1 and not last and before[-1] not in _PLACES:
            _say(word, "de")
        elif word.text in ("着", "了", "的"):
            _say(word, {"着": "zhe", "了": "le", "的": "de"}[word.text])
        elif word.text == "只" and before and before[-1] in _NUMERALS | set("两几每这那"):
            _say(word, "zhī")
        elif word.text == "长" and (before in _HOW_MUCH or after[:1] == "的"):
            _say(word, "cháng")
        elif word.text == "还" and after and after[0] in _GIVEN:
            _say(word, "huán")
        elif word.text == "教":
            _say(word, "jiāo")
        before = word.text


def _say(word: Word, reading: str) -> None:
    word.syllables[0].bopomofo, word.syllables[0].tone = _sound(reading)


def _apply_yi_and_bu(phrase: list[Word]) -> None:
    """一 and 不 take their tone from what follows; a number's or an ordinal's 一 keeps its own."""
    flat = [(word, place) for word in phrase for place in range(len(word.syllables))]
    chars = "".join(word.text[place] for word, place in flat)
    for here, (word, place) in enumerate(flat):
        syllable = word.syllables[place]
        if syllable.char not in "一不":
            continue
        after = flat[here + 1][0].syllables[flat[here + 1][1]] if here + 1 < len(flat) else None
        between = 0 < here < len(chars) - 1 and chars[here - 1] == chars[here + 1]
        ends_word = place == len(word.syllables) - 1 and len(word.syllables) > 1
        if syllable.char == "一" and (ends_word or _counts(chars, here)):
            syllable.tone = 1
        elif between and chars[here - 1] not in "一不":
            syllable.tone = 5  # 看一看, 好不好
        elif after is None:
            syllable.tone = 1 if syllable.char == "一" else 4
        else:
            falling = after.tone == 4 or after.char == "个"
            syllable.tone = 2 if falling else 4


def _counts(chars: str, here: int) -> bool:
    """Whether the 一 at `here` is a digit or an ordinal: 二十一, 第一, 一月."""
    before, after = chars[here - 1 : here], chars[here + 1 :]
    if (
        before in _ORDINAL_BEFORE
        or (before and before in _NUMERALS | {"点"})
        or before in ("周", "期")
    ):
        return before not in ("周", "期") or not after or after[0] in _NUMERALS or before == "期"
    decimal = after[:1] == "点" and after[1:2] != "" and after[1] in _NUMERALS
    return decimal or (bool(after) and (after[0] in _NUMERALS or after.startswith(_ORDINAL_AFTER)))


def _apply_third_tones(phrase: list[Word]) -> None:
    """A third tone before a third tone rises, first inside words, then from word to word.

    小老鼠 is 3-2-3 and 展览馆 2-2-3 because the inner word changes first.
    """
    for word in phrase:
        cut = _inner_cut(word)
        for part in (word.syllables[:cut], word.syllables[cut:]):
            _raise_thirds(part)
        if 0 < cut < len(word.syllables):
            _raise_pair(word.syllables[cut - 1], word.syllables[cut])
    spoken = [word for word in phrase if word.syllables]
    for left, right in pairwise(spoken):
        _raise_pair(left.syllables[-1], right.syllables[0])


def _raise_thirds(syllables: tuple[Syllable, ...]) -> None:
    for left, right in pairwise(syllables):
        _raise_pair(left, right)


def _raise_pair(left: Syllable, right: Syllable) -> None:
    if left.tone == 3 and right.tone == 3:
        left.tone = 2


def _inner_cut(word: Word) -> int:
    """Where a word of three or four syllables is built of two; 0 where it is one piece."""
    length = len(word.syllables)
    if length == 4:
        return 2
    if length != 3:
        return 0
    known = _tokenizer().FREQ
    return 1 if known.get(word.text[1:], 0) > known.get(word.text[:2], 0) else 2


def _cut(text: str) -> list[str]:
    return list(_tokenizer().cut(text, HMM=False))


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    """jieba's dictionary; its cache is kept where no other user of the machine can write."""
    import jieba

    with _LOADING:
        jieba.setLogLevel(logging.WARNING)
        tokenizer = jieba.Tokenizer()
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elysia"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tokenizer.tmp_dir = str(folder)
        except OSError:
            # Without a home it is read anew each time: a second, and no file for others to plant.
            tokenizer.cache_file = os.devnull
        tokenizer.initialize()
    return tokenizer
