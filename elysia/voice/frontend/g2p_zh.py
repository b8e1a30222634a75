"""Chinese text as words of syllables with tones, as they are spoken.

Words come from jieba and readings from pypinyin's phrases, corrected by the tables READINGS and
LIGHT_WORDS at the end. Tone sandhi is done here: 一, 不, and third tones in a row.
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

from elysia.voice.frontend.strip_markup import HAN

_HAN_RUN = re.compile(f"([{HAN}]+)")
_NUMERALS = set("零〇一二三四五六七八九十幺")
_ORDINAL_BEFORE = set("第初")
_ORDINAL_AFTER = ("月", "号", "楼", "等奖", "等功", "级", "年级", "班", "把手", "线城", "中")
_WHO = "我 你 他 她 它 您 我们 你们 他们 她们 咱们 谁 就 还 也 都 总 可 又 非 只 先 人 今天 明天"
_WHO_MUST = set(_WHO.split())
_MUCH = "很 太 多 好 更 真 最 不 挺 这么 那么 多么 非常 有点 米 公里 厘米 一样"
_HOW_MUCH = set(_MUCH.split())
_GIVEN = set("给钱书债款清")  # what is given back: 还钱
_PLACES = set("原土草基各该此本当当场外内陆")  # 原地 and the like, where 地 is ground
_LOADING = threading.Lock()


@dataclass
class TonedSyllable:
    """A Han character as it is spoken: bopomofo without a tone mark, and the tone, 1 to 5 (light)."""

    char: str
    bopomofo: str
    tone: int


@dataclass(frozen=True)
class SpokenWord:
    """A word and its syllables. Text that is not Han has none and stays as it is."""

    text: str
    syllables: tuple[TonedSyllable, ...] = ()


def text_to_words(text: str, *, sandhi: bool = True) -> list[SpokenWord]:
    """The words of `text` in order, with tones as spoken, or, without `sandhi`, as in the dictionary.

    >>> ["".join(f"{s.bopomofo}{s.tone}" for s in w.syllables) for w in text_to_words("你好")]
    ['ㄋㄧ2ㄏㄠ3']
    """
    words: list[SpokenWord] = []
    for part in _HAN_RUN.split(text):
        if not part:
            continue
        if not _HAN_RUN.match(part):
            words.append(SpokenWord(part))
            continue
        phrase = [SpokenWord(word, _read_syllables(word)) for word in _segment(part)]
        _read_particles(phrase)
        if sandhi:
            _apply_yi_and_bu(phrase)
            _apply_third_tones(phrase)
        words += phrase
    return words


def _read_syllables(word: str) -> tuple[TonedSyllable, ...]:
    readings = tuple(
        TonedSyllable(char, *_to_bopomofo(reading))
        for char, reading in zip(word, _read_pinyin(word), strict=True)
    )
    if word in LIGHT_WORDS:
        readings[-1].tone = 5
    return readings


@lru_cache(maxsize=8192)
def _read_pinyin(word: str) -> tuple[str, ...]:
    """Pinyin with tone marks, one a character."""
    from pypinyin import Style, lazy_pinyin

    if word in READINGS:
        return tuple(READINGS[word].split())
    readings: list[str] = lazy_pinyin(word, style=Style.TONE, errors="ignore")
    return (
        tuple(readings) if len(readings) == len(word) else tuple(_read_char(char) for char in word)
    )


def _read_char(char: str) -> str:
    from pypinyin import Style, lazy_pinyin

    readings: list[str] = lazy_pinyin(char, style=Style.TONE, errors="ignore")
    return readings[0] if readings else ""


@lru_cache(maxsize=2048)
def _to_bopomofo(reading: str) -> tuple[str, int]:
    """Bopomofo without its tone mark, and the tone."""
    from pypinyin import Style
    from pypinyin.style import convert

    marks = {"ˊ": 2, "ˇ": 3, "ˋ": 4, "˙": 5}
    readings = convert(reading, Style.BOPOMOFO, strict=True, default="") if reading else ""
    if readings and readings[-1] in marks:
        return readings[:-1], marks[readings[-1]]
    toneless = bool(readings) and reading.isascii()
    return readings, 5 if toneless else 1


def _read_particles(phrase: list[SpokenWord]) -> None:
    """Choose the reading of one-character words by their neighbours.

    得, 地 and 着 are particles, but 得 is "must" (děi) behind a person; 只 is a measure word (zhī) behind
    a number; 长 is "long" (cháng) behind a degree; 还 is "give back" (huán) before what is given.
    """
    before = ""
    for here, word in enumerate(phrase):
        last = here == len(phrase) - 1
        after = "" if last else phrase[here + 1].text
        if word.text == "得":
            must = before in _WHO_MUST and not last
            _set_reading(word, "děi" if must else "de")
        elif word.text == "地" and len(before) > 1 and not last and before[-1] not in _PLACES:
            _set_reading(word, "de")
        elif word.text in ("着", "了", "的"):
            _set_reading(word, {"着": "zhe", "了": "le", "的": "de"}[word.text])
        elif word.text == "只" and before and before[-1] in _NUMERALS | set("两几每这那"):
            _set_reading(word, "zhī")
        elif word.text == "长" and (before in _HOW_MUCH or after[:1] == "的"):
            _set_reading(word, "cháng")
        elif word.text == "还" and after and after[0] in _GIVEN:
            _set_reading(word, "huán")
        elif word.text == "教":
            _set_reading(word, "jiāo")
        before = word.text


def _set_reading(word: SpokenWord, reading: str) -> None:
    word.syllables[0].bopomofo, word.syllables[0].tone = _to_bopomofo(reading)


def _apply_yi_and_bu(phrase: list[SpokenWord]) -> None:
    """一 and 不 take their tone from what follows; the 一 of a number or an ordinal keeps its own."""
    flat = [(word, place) for word in phrase for place in range(len(word.syllables))]
    chars = "".join(word.text[place] for word, place in flat)
    for here, (word, place) in enumerate(flat):
        syllable = word.syllables[place]
        if syllable.char not in "一不":
            continue
        after = flat[here + 1][0].syllables[flat[here + 1][1]] if here + 1 < len(flat) else None
        between = 0 < here < len(chars) - 1 and chars[here - 1] == chars[here + 1]
        ends_word = place == len(word.syllables) - 1 and len(word.syllables) > 1
        if syllable.char == "一" and (ends_word or _is_numeral_or_ordinal(chars, here)):
            syllable.tone = 1
        elif between and chars[here - 1] not in "一不":
            syllable.tone = 5  # 看一看, 好不好
        elif after is None:
            syllable.tone = 1 if syllable.char == "一" else 4
        else:
            falling = after.tone == 4 or after.char == "个"
            syllable.tone = 2 if falling else 4


def _is_numeral_or_ordinal(chars: str, here: int) -> bool:
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


def _apply_third_tones(phrase: list[SpokenWord]) -> None:
    """A third tone before a third tone becomes a second, first inside words, then between them.

    小老鼠 is 3-2-3 and 展览馆 2-2-3, because the inner word changes first.
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


def _raise_thirds(syllables: tuple[TonedSyllable, ...]) -> None:
    for left, right in pairwise(syllables):
        _raise_pair(left, right)


def _raise_pair(left: TonedSyllable, right: TonedSyllable) -> None:
    if left.tone == 3 and right.tone == 3:
        left.tone = 2


def _inner_cut(word: SpokenWord) -> int:
    """Where a word of three or four syllables is composed of two words; 0 when it is one piece.

    Three syllables are cut where jieba's dictionary has the more frequent pair.
    """
    length = len(word.syllables)
    if length == 4:
        return 2
    if length != 3:
        return 0
    known = _load_tokenizer().FREQ
    return 1 if known.get(word.text[1:], 0) > known.get(word.text[:2], 0) else 2


def _segment(text: str) -> list[str]:
    return list(_load_tokenizer().cut(text, HMM=False))


@lru_cache(maxsize=1)
def _load_tokenizer() -> Any:
    """jieba with its dictionary. The cache lies where no other user of the machine can write: jieba
    loads it with marshal, and looks for it in the shared /tmp by default.
    """
    import jieba

    with _LOADING:
        jieba.setLogLevel(logging.WARNING)
        tokenizer = jieba.Tokenizer()
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elysia"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tokenizer.tmp_dir = str(folder)
        except OSError:
            # No home to write to: read the dictionary anew, which takes a second, and use no cache.
            tokenizer.cache_file = os.devnull
        tokenizer.initialize()
    return tokenizer


# One pinyin a character, with tone marks.
READINGS = {
    "爱莉希雅": "ài lì xī yǎ", "行长": "háng zhǎng", "还给": "huán gěi", "还书": "huán shū",
    "还钱": "huán qián", "还债": "huán zhài", "朝阳区": "cháo yáng qū", "跑得快": "pǎo de kuài",
    "数一数": "shǔ yī shǔ", "落下": "luò xià", "嗯": "èn", "诶": "éi", "哦": "ò", "长发": "cháng fà",
    "背书包": "bēi shū bāo", "两只": "liǎng zhī", "佛": "fó",
}  # fmt: skip

# The last syllable of these is light (轻声) in standard speech.
_LIGHT = """
妈妈 爸爸 哥哥 姐姐 弟弟 妹妹 爷爷 奶奶 公公 婆婆 叔叔 舅舅 太太 娃娃 星星 猩猩
宝宝 谢谢 宝贝 朋友 东西 喜欢 漂亮 衣服 月亮 先生 姑娘 眼睛 耳朵 时候 认识 告诉
明白 干净 舒服 聪明 知识 部分 晚上 早上 地方 客气 不客气 消息 休息 关系 没关系 窗户
太阳 头发 嘴巴 脑袋 故事 事情 生意 学生 医生 热闹 麻烦 便宜 打听 打算 商量 收拾
答应 招呼 打招呼 琢磨 糊涂 糊弄 凉快 结实 扎实 老实 厉害 利索 清楚 痛快 勤快 马虎
迷糊 模糊 客人 丈夫 媳妇 丫头 亲戚 邻居 师傅 护士 大夫 裁缝 木匠 豆腐 馒头 萝卜
葡萄 石榴 云彩 庄稼 牲口 骆驼 狐狸 苍蝇 蘑菇 玻璃 钥匙 扫帚 灯笼 包袱 行李 胳膊
指甲 屁股 力气 脾气 福气 运气 本事 动静 工夫 记性 见识 名字 年纪 精神 意识 心思
学问 交情 规矩 毛病 笑话 应酬 耽误 吩咐 嘱咐 念叨 唠叨 折腾 咳嗽 哆嗦 合同 官司
买卖 委屈 稀罕 新鲜 暖和 软和 困难 窟窿
"""
LIGHT_WORDS = frozenset(_LIGHT.split())
