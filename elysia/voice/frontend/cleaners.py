"""A normalised text in the symbols that a model was trained on.

`CLEANERS` names each writing as VITS's configs do. What a writing cannot say is left out and
counted, never silently. Knows nothing of models; `detect_cleaner` looks only at a list of symbols.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from elysia.core.errors import VoiceError
from elysia.voice.frontend import language_id
from elysia.voice.frontend.g2p_zh import TonedSyllable, text_to_words
from elysia.voice.frontend.normalize_en import word_to_ipa

_WIDE = str.maketrans(",.!?;:、；：-~～", "，。！？，，，，，—……", "'’")
_NARROW = str.maketrans("，。！？；：、—～;:", ",.!?,,,-~,,")
_QUOTES = re.compile(r"[\"“”‘’「」『』《》〈〉()（）\[\]【】·•/\\]")
_WORD = re.compile(r"[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f'’]*")

# More of a text than this lost, and a writing is not the model's.
MAX_DROPPED = 0.05


@dataclass(frozen=True)
class CleanedText:
    """Symbols to be said, and the stretches of text that this writing has no symbols for."""

    symbols: str
    unsaid: tuple[str, ...] = ()


def clean_text(text: str, cleaner: str, *, sandhi: bool = True) -> CleanedText:
    """`text`, normalised, through one of CLEANERS. VoiceError for a name that is none of them."""
    if cleaner not in CLEANERS:
        raise VoiceError(f"There is no cleaner '{cleaner}', only {', '.join(CLEANERS)}.")
    return CLEANERS[cleaner](_QUOTES.sub("", text), sandhi)


def chinese_cleaners(text: str, sandhi: bool = True) -> CleanedText:
    """Bopomofo with tone marks, a blank before each word; Latin letters by their names.

    >>> chinese_cleaners("你好，世界").symbols
    'ㄋㄧˊㄏㄠˇ， ㄕˋㄐㄧㄝˋ。'
    """
    said, unsaid = "", []
    for span in language_id.split_languages(text):
        if span.language in ("zh", "en"):
            said += _write_bopomofo(span.text, sandhi, bool(said))
        else:
            unsaid.append(span.text)
    said = re.sub(r"([ˉˊˇˋ˙])$", r"\1。", re.sub(r"\s+", " ", said).strip())
    return CleanedText(said, tuple(unsaid))


def _write_bopomofo(text: str, sandhi: bool, inside: bool) -> str:
    said = ""
    for word in text_to_words(text.translate(_WIDE), sandhi=sandhi):
        if word.syllables:
            blank = " " if said or inside else ""
            said += blank + "".join(map(syllable_to_bopomofo, word.syllables))
        else:
            said += "".join(LETTERS.get(char.lower(), char) for char in word.text)
    return said


def cjke_cleaners2(text: str, sandhi: bool = True) -> CleanedText:
    """IPA: Chinese syllables with arrows for tones, English words from the dictionary.

    >>> cjke_cleaners2("你好，world!").symbols
    'ni↑xɑʊ↓↑, wəɹɫd!'
    """
    said, unsaid = "", []
    for span in language_id.split_languages(text):
        if span.language == "zh":
            said += _write_chinese_ipa(span.text, sandhi) + " "
        elif span.language == "en":
            said += _write_english(span.text, lambda word: to_model_ipa(word_to_ipa(word))) + " "
        else:
            unsaid.append(span.text)
    return CleanedText(_finish_sentence(said), tuple(unsaid))


def _write_chinese_ipa(text: str, sandhi: bool) -> str:
    said = ""
    for word in text_to_words(text.translate(_NARROW), sandhi=sandhi):
        blank = " " if said and word.syllables and not said.endswith(" ") else ""
        said += blank + (
            "".join(map(syllable_ipa, word.syllables)) if word.syllables else word.text
        )
    return said.strip()


def _write_english(text: str, say: Callable[[str], str]) -> str:
    return _WORD.sub(lambda found: say(found[0]), text.translate(_NARROW)).strip()


def pinyin_cleaners(text: str, sandhi: bool = True) -> CleanedText:
    """Pinyin with tone digits, a blank between syllables; English as its letters.

    Some forks give the name chinese_cleaners to this; `detect_cleaner` tells them apart by the symbols.

    >>> pinyin_cleaners("你好。").symbols
    'ni2 hao3.'
    """
    said: list[str] = []
    unsaid = []
    for span in language_id.split_languages(text):
        if span.language not in ("zh", "en"):
            unsaid.append(span.text)
            continue
        for word in text_to_words(span.text.translate(_NARROW).replace("'", ""), sandhi=sandhi):
            if word.syllables:
                said += [
                    f" {bopomofo_to_pinyin(part.bopomofo)}{part.tone}" for part in word.syllables
                ]
            else:
                said.append(word.text.lower())
    return CleanedText(_finish_sentence("".join(said).strip()), tuple(unsaid))


def _finish_sentence(said: str) -> str:
    said = re.sub(r" +(?=[,.!?…~-])", "", re.sub(r"\s+", " ", said)).strip()
    said = re.sub(r"([,.!?…])(?=[^\s,.!?…~-])", r"\1 ", said)
    return said if not said or said[-1] in ",.!?-…~" else said + "."


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


def count_dropped(text: str, cleaner: str, symbols: Collection[str]) -> tuple[float, str]:
    """What share of `text`'s symbols a model without them would lose, and which, most first."""
    known = set(symbols)
    said = clean_text(text, cleaner).symbols
    lost = [char for char in said if char not in known]
    names = "".join(sorted(set(lost), key=lost.count, reverse=True))
    return (len(lost) / len(said) if said else 0.0), names


def detect_cleaner(symbols: Collection[str], named: str = "") -> str:
    """The cleaner that writes in `symbols`; the one a config names, where it fits.

    Raises VoiceError, with the share lost and the symbols, when none fits.
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
        f"The checkpoint's {len(symbols)} symbols fit no cleaner: even {best} would lose {share:.0%} "
        f"of a Chinese text ({lost[:20]}). Its config names '{named or 'none'}'; give the config "
        "that the checkpoint was trained with."
    )


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
    """A syllable with its tone mark; the first tone is written, too."""
    return syllable.bopomofo + TONES_BOPOMOFO[syllable.tone] if syllable.bopomofo else ""


def syllable_ipa(syllable: TonedSyllable) -> str:
    """A syllable in the IPA of cjke_cleaners2.

    >>> syllable_ipa(TonedSyllable("好", "ㄏㄠ", 3)), syllable_ipa(TonedSyllable("是", "ㄕ", 4)), syllable_ipa(TonedSyllable("学", "ㄒㄩㄝ", 2))
    ('xɑʊ↓↑', 's`ɹ`↓', 'ʃɥɛ↑')
    """
    sound, tone = syllable.bopomofo, TONES_IPA[syllable.tone]
    if not sound:
        return ""
    if sound in _BARE or sound in _LABIAL_O:
        return (_BARE.get(sound) or _LABIAL_O[sound]) + tone
    initial = sound[0] if sound[0] in _INITIALS else ""
    return _INITIALS.get(initial, "") + _FINALS.get(sound[len(initial) :], "") + tone


def to_model_ipa(sounds: str) -> str:
    """The dictionary's IPA of a word in the symbols of cjke_cleaners2: no affricate letters, ɹ, dark l.

    >>> to_model_ipa("ˈlɪtəl ʤəʤ")
    'ˈlɪtəɫ dʒədʒ'
    """
    sounds = re.sub(r"l(?=[^aeiouæɑɔəɛɪʊ ]*(?: |$))", "ɫ", sounds)
    return sounds.replace("r", "ɹ").replace("ʤ", "dʒ").replace("ʧ", "tʃ")


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

    >>> bopomofo_to_pinyin("ㄋㄩ"), bopomofo_to_pinyin("ㄐㄩㄝ"), bopomofo_to_pinyin("ㄧㄡ"), bopomofo_to_pinyin("ㄓ")
    ('nv', 'jue', 'you', 'zhi')
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
