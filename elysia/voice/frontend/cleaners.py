"""Normalized text in the symbols that a VITS model was trained on: bopomofo, IPA or pinyin.

`CLEANERS` maps the names in VITS's configs to functions, `SYMBOLS` to each one's symbol set. Text that a
cleaner has no symbols for is returned as `unsaid`, never dropped silently. The spellings of each final
follow the published sound tables of VITS's chinese_cleaners and cjke_cleaners2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from elysia.core.errors import VoiceError
from elysia.core.i18n import Text
from elysia.voice.frontend import language_id
from elysia.voice.frontend.g2p_en import to_model_ipa, word_to_ipa
from elysia.voice.frontend.g2p_zh import TonedSyllable, text_to_words

_WIDE = str.maketrans(",.!?;:、；：-~～", "，。！？，，，，，—……", "'’")
_NARROW = str.maketrans("，。！？；：、—～;:", ",.!?,,,-~,,")
_QUOTES = re.compile(r"[\"“”‘’「」『』《》〈〉()（）\[\]【】·•/\\]")
_WORD = re.compile(r"[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f'’]*")

# A cleaner that would lose a larger share of a text than this is not the model's.
MAX_DROPPED = 0.05


@dataclass(frozen=True)
class CleanedText:
    """The symbols of a text, and the stretches of it that the cleaner has no symbols for."""

    symbols: str
    unsaid: tuple[str, ...] = ()


def clean_text(text: str, cleaner: str, *, sandhi: bool = True) -> CleanedText:
    """Run normalized `text` through one of CLEANERS; `sandhi` applies the rules for neighbouring tones.

    Raises VoiceError for an unknown cleaner.
    """
    if cleaner not in CLEANERS:
        raise VoiceError("voice.unknown_cleaner", cleaner=cleaner, known=[*CLEANERS])
    return CLEANERS[cleaner](_QUOTES.sub("", text), sandhi)


def chinese_cleaners(text: str, sandhi: bool = True) -> CleanedText:
    """Bopomofo with tone marks, a blank before each word; Latin letters are spelled by their names.

    >>> chinese_cleaners("你好，世界").symbols
    'ㄋㄧˊㄏㄠˇ， ㄕˋㄐㄧㄝˋ。'
    """
    symbols, unsaid = "", []
    for span in language_id.split_languages(text):
        if span.language in ("zh", "en"):
            symbols += _write_bopomofo(span.text, sandhi, bool(symbols))
        else:
            unsaid.append(span.text)
    symbols = re.sub(r"([ˉˊˇˋ˙])$", r"\1。", re.sub(r"\s+", " ", symbols).strip())
    return CleanedText(symbols, tuple(unsaid))


def _write_bopomofo(text: str, sandhi: bool, inside: bool) -> str:
    symbols = ""
    for word in text_to_words(text.translate(_WIDE), sandhi=sandhi):
        if word.syllables:
            blank = " " if symbols or inside else ""
            symbols += blank + "".join(map(syllable_to_bopomofo, word.syllables))
        else:
            symbols += "".join(LETTERS.get(char.lower(), char) for char in word.text)
    return symbols


def cjke_cleaners2(text: str, sandhi: bool = True) -> CleanedText:
    """IPA: Chinese syllables with arrows for tones, English words from the dictionary.

    >>> cjke_cleaners2("你好，world!").symbols
    'ni↑xɑʊ↓↑, wəɹɫd!'
    """
    symbols, unsaid = "", []
    for span in language_id.split_languages(text):
        if span.language == "zh":
            symbols += _write_chinese_ipa(span.text, sandhi) + " "
        elif span.language == "en":
            symbols += _write_english(span.text, lambda word: to_model_ipa(word_to_ipa(word))) + " "
        else:
            unsaid.append(span.text)
    return CleanedText(_finish_sentence(symbols), tuple(unsaid))


def _write_chinese_ipa(text: str, sandhi: bool) -> str:
    symbols = ""
    for word in text_to_words(text.translate(_NARROW), sandhi=sandhi):
        blank = " " if symbols and word.syllables and not symbols.endswith(" ") else ""
        symbols += blank + (
            "".join(map(syllable_ipa, word.syllables)) if word.syllables else word.text
        )
    return symbols.strip()


def _write_english(text: str, say: Callable[[str], str]) -> str:
    return _WORD.sub(lambda match: say(match[0]), text.translate(_NARROW)).strip()


def pinyin_cleaners(text: str, sandhi: bool = True) -> CleanedText:
    """Pinyin with tone digits, a blank between syllables; English as its letters.

    Some forks call this chinese_cleaners, too; `detect_cleaner` tells them apart by their symbols.

    >>> pinyin_cleaners("你好。").symbols
    'ni2 hao3.'
    """
    symbols: list[str] = []
    unsaid = []
    for span in language_id.split_languages(text):
        if span.language not in ("zh", "en"):
            unsaid.append(span.text)
            continue
        for word in text_to_words(span.text.translate(_NARROW).replace("'", ""), sandhi=sandhi):
            if word.syllables:
                symbols += [
                    f" {bopomofo_to_pinyin(part.bopomofo)}{part.tone}" for part in word.syllables
                ]
            else:
                symbols.append(word.text.lower())
    return CleanedText(_finish_sentence("".join(symbols).strip()), tuple(unsaid))


def _finish_sentence(symbols: str) -> str:
    symbols = re.sub(r" +(?=[,.!?…~-])", "", re.sub(r"\s+", " ", symbols)).strip()
    symbols = re.sub(r"([,.!?…])(?=[^\s,.!?…~-])", r"\1 ", symbols)
    return symbols if not symbols or symbols[-1] in ",.!?-…~" else symbols + "."


CLEANERS: dict[str, Callable[[str, bool], CleanedText]] = {
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


def count_dropped(text: str, cleaner: str, known: Collection[str]) -> tuple[float, str]:
    """What share of a text's symbols a model that knows only `known` would lose, and which, most first."""
    symbols, table = clean_text(text, cleaner).symbols, set(known)
    lost = [char for char in symbols if char not in table]
    names = "".join(sorted(set(lost), key=lost.count, reverse=True))
    return (len(lost) / len(symbols) if symbols else 0.0), names


def detect_cleaner(symbols: Collection[str], named: str = "") -> str:
    """The cleaner that writes in `symbols`: the one that a config names, if it fits, else the best.

    Raises VoiceError, with the share and the symbols that would be lost, when none fits.
    """
    text = "".join(_SAMPLES)
    order = sorted(
        CLEANERS, key=lambda name: (name != named, count_dropped(text, name, symbols)[0])
    )
    for name in order:
        if count_dropped(text, name, symbols)[0] <= MAX_DROPPED:
            return name
    best = min(CLEANERS, key=lambda name: count_dropped(text, name, symbols)[0])
    share, lost = count_dropped(text, best, symbols)
    raise VoiceError(
        "voice.no_cleaner_fits", count=len(symbols), best=best, share=f"{share:.0%}",
        lost=lost[:20], named=named or Text("voice.none"),
    )  # fmt: skip


TONES_BOPOMOFO = {1: "ˉ", 2: "ˊ", 3: "ˇ", 4: "ˋ", 5: "˙"}
TONES_IPA = {1: "→", 2: "↑", 3: "↓↑", 4: "↓", 5: ""}

BOPOMOFO = tuple(
    "_，。！？—…ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒㄓㄔㄕㄖㄗㄘㄙㄚㄛㄜㄝㄞㄟㄠㄡㄢㄣㄤㄥㄦㄧㄨㄩˉˊˇˋ˙ "
)
CJKE2 = tuple("_,.!?-~…NQabdefghijklmnopstuvwxyzɑæʃʑçɯɪɔɛɹðəɫɥɸʊɾʒθβŋɦ⁼ʰ`^#*=ˈˌ→↓↑ ")
PINYIN = tuple("_,.!?-~…abcdefghijklmnopqrstuvwxyz12345 ")
SYMBOLS = {"chinese_cleaners": BOPOMOFO, "cjke_cleaners2": CJKE2, "pinyin": PINYIN}

_INITIALS = {
    "ㄅ": "p⁼", "ㄆ": "pʰ", "ㄇ": "m", "ㄈ": "f", "ㄉ": "t⁼", "ㄊ": "tʰ", "ㄋ": "n", "ㄌ": "l",
    "ㄍ": "k⁼", "ㄎ": "kʰ", "ㄏ": "x", "ㄐ": "tʃ⁼", "ㄑ": "tʃʰ", "ㄒ": "ʃ", "ㄓ": "ts`⁼",
    "ㄔ": "ts`ʰ", "ㄕ": "s`", "ㄖ": "ɹ`", "ㄗ": "ts⁼", "ㄘ": "tsʰ", "ㄙ": "s",
}  # fmt: skip
_FINALS = {
    "": "", "ㄚ": "a", "ㄛ": "o", "ㄜ": "ə", "ㄝ": "ɛ", "ㄞ": "aɪ", "ㄟ": "eɪ", "ㄠ": "ɑʊ", "ㄡ": "oʊ",
    "ㄢ": "an", "ㄣ": "ən", "ㄤ": "ɑŋ", "ㄥ": "əŋ", "ㄦ": "əɹ`",
    "ㄧ": "i", "ㄧㄚ": "ja", "ㄧㄛ": "jo", "ㄧㄝ": "iɛ", "ㄧㄞ": "jaɪ", "ㄧㄠ": "iɑʊ", "ㄧㄡ": "joʊ",
    "ㄧㄢ": "jɛn", "ㄧㄣ": "in", "ㄧㄤ": "iɑŋ", "ㄧㄥ": "iŋ",
    "ㄨ": "u", "ㄨㄚ": "wa", "ㄨㄛ": "wo", "ㄨㄞ": "waɪ", "ㄨㄟ": "weɪ", "ㄨㄢ": "wan", "ㄨㄣ": "wən",
    "ㄨㄤ": "uɑŋ", "ㄨㄥ": "ʊŋ",
    "ㄩ": "ɥ", "ㄩㄝ": "ɥɛ", "ㄩㄢ": "ɥæn", "ㄩㄣ": "ɥn", "ㄩㄥ": "jʊŋ",
}  # fmt: skip
# Without a final the tongue stays where the initial put it: 知, 日, 资.
_BARE = {
    "ㄓ": "ts`⁼ɹ`",
    "ㄔ": "ts`ʰɹ`",
    "ㄕ": "s`ɹ`",
    "ㄖ": "ɹ`ɹ`",
    "ㄗ": "ts⁼ɹ",
    "ㄘ": "tsʰɹ",
    "ㄙ": "sɹ",
}
_LABIAL_O = {"ㄅㄛ": "p⁼wo", "ㄆㄛ": "pʰwo", "ㄇㄛ": "mwo", "ㄈㄛ": "fwo"}

# Names of Latin letters in bopomofo, for the symbol set that has nothing else.
LETTERS = {
    "a": "ㄟˉ", "b": "ㄅㄧˋ", "c": "ㄙㄧˉ", "d": "ㄉㄧˋ", "e": "ㄧˋ", "f": "ㄝˊㄈㄨˋ", "g": "ㄐㄧˋ",
    "h": "ㄝˇㄑㄩˋ", "i": "ㄞˋ", "j": "ㄐㄟˋ", "k": "ㄎㄟˋ", "l": "ㄝˊㄛˋ", "m": "ㄝˊㄇㄨˋ", "n": "ㄣˉ",
    "o": "ㄡˉ", "p": "ㄆㄧˉ", "q": "ㄎㄧㄡˉ", "r": "ㄚˋ", "s": "ㄝˊㄙˋ", "t": "ㄊㄧˋ", "u": "ㄧㄡˉ",
    "v": "ㄨㄧˉ", "w": "ㄉㄚˋㄅㄨˋㄌㄧㄡˋ", "x": "ㄝˉㄎㄨˋㄙˋ", "y": "ㄨㄞˋ", "z": "ㄗㄟˋ",
}  # fmt: skip


def syllable_to_bopomofo(syllable: TonedSyllable) -> str:
    """A syllable in bopomofo with its tone mark, which the first tone has, too."""
    return syllable.bopomofo + TONES_BOPOMOFO[syllable.tone] if syllable.bopomofo else ""


def syllable_ipa(syllable: TonedSyllable) -> str:
    """A syllable in the IPA of cjke_cleaners2.

    >>> [syllable_ipa(TonedSyllable(*it)) for it in (("好", "ㄏㄠ", 3), ("是", "ㄕ", 4), ("学", "ㄒㄩㄝ", 2))]
    ['xɑʊ↓↑', 's`ɹ`↓', 'ʃɥɛ↑']
    """
    sound, tone = syllable.bopomofo, TONES_IPA[syllable.tone]
    if not sound:
        return ""
    if sound in _BARE or sound in _LABIAL_O:
        return (_BARE.get(sound) or _LABIAL_O[sound]) + tone
    initial = sound[0] if sound[0] in _INITIALS else ""
    return _INITIALS.get(initial, "") + _FINALS.get(sound[len(initial) :], "") + tone


_LATIN_INITIALS = "b p m f d t n l g k h j q x zh ch sh r z c s"
_PINYIN_INITIALS = dict(zip(_INITIALS, _LATIN_INITIALS.split(), strict=True))
_PINYIN_FINALS = {
    "": "i", "ㄚ": "a", "ㄛ": "o", "ㄜ": "e", "ㄝ": "e", "ㄞ": "ai", "ㄟ": "ei", "ㄠ": "ao", "ㄡ": "ou",
    "ㄢ": "an", "ㄣ": "en", "ㄤ": "ang", "ㄥ": "eng", "ㄦ": "er", "ㄧ": "i", "ㄧㄚ": "ia", "ㄧㄛ": "io",
    "ㄧㄝ": "ie", "ㄧㄞ": "iai", "ㄧㄠ": "iao", "ㄧㄡ": "iu", "ㄧㄢ": "ian", "ㄧㄣ": "in", "ㄧㄤ": "iang",
    "ㄧㄥ": "ing", "ㄨ": "u", "ㄨㄚ": "ua", "ㄨㄛ": "uo", "ㄨㄞ": "uai", "ㄨㄟ": "ui", "ㄨㄢ": "uan",
    "ㄨㄣ": "un", "ㄨㄤ": "uang", "ㄨㄥ": "ong", "ㄩ": "v", "ㄩㄝ": "ve", "ㄩㄢ": "van", "ㄩㄣ": "vn",
    "ㄩㄥ": "iong",
}  # fmt: skip
_PINYIN_ALONE = {
    "ㄧ": "yi", "ㄧㄡ": "you", "ㄧㄣ": "yin", "ㄧㄥ": "ying", "ㄨ": "wu", "ㄨㄟ": "wei", "ㄨㄣ": "wen",
    "ㄨㄥ": "weng", "ㄩ": "yu", "ㄩㄝ": "yue", "ㄩㄢ": "yuan", "ㄩㄣ": "yun", "ㄩㄥ": "yong",
}  # fmt: skip


def bopomofo_to_pinyin(sound: str) -> str:
    """Bopomofo without tone as pinyin; ü is v behind l and n.

    >>> [bopomofo_to_pinyin(sound) for sound in ("ㄋㄩ", "ㄐㄩㄝ", "ㄧㄡ", "ㄓ")]
    ['nv', 'jue', 'you', 'zhi']
    """
    if not sound:
        return ""
    initial = _PINYIN_INITIALS.get(sound[0], "")
    if initial:
        final = _PINYIN_FINALS.get(sound[1:], "")
        return initial + (final.replace("v", "u") if initial in "jqx" else final)
    if sound in _PINYIN_ALONE:
        return _PINYIN_ALONE[sound]
    final = _PINYIN_FINALS.get(sound, "")
    return {"i": "y", "u": "w"}.get(final[:1], final[:1]) + final[1:]
