"""Syllables in the symbols that VITS models learned: bopomofo with tone, and IPA.

The two symbol sets are those of VITS's chinese_cleaners and cjke_cleaners2; the spellings of each
final follow their published tables of sounds. Knows nothing of words or of text.
"""

from __future__ import annotations

import re

from elysia.voice.text.mandarin import Syllable

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


def bopomofo(syllable: Syllable) -> str:
    """A syllable with its tone mark; the first tone is written, too."""
    return syllable.bopomofo + TONES_BOPOMOFO[syllable.tone] if syllable.bopomofo else ""


def ipa(syllable: Syllable) -> str:
    """A syllable in the IPA of cjke_cleaners2.

    >>> ipa(Syllable("好", "ㄏㄠ", 3)), ipa(Syllable("是", "ㄕ", 4)), ipa(Syllable("学", "ㄒㄩㄝ", 2))
    ('xɑʊ↓↑', 's`ɹ`↓', 'ʃɥɛ↑')
    """
    sound, tone = syllable.bopomofo, TONES_IPA[syllable.tone]
    if not sound:
        return ""
    if sound in _BARE or sound in _LABIAL_O:
        return (_BARE.get(sound) or _LABIAL_O[sound]) + tone
    initial = sound[0] if sound[0] in _INITIALS else ""
    return _INITIALS.get(initial, "") + _FINALS.get(sound[len(initial) :], "") + tone


def english_ipa(sounds: str) -> str:
    """The dictionary's IPA of a word in the symbols of cjke_cleaners2: no affricate letters, ɹ, dark l.

    >>> english_ipa("ˈlɪtəl ʤəʤ")
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


def pinyin_of(sound: str) -> str:
    """Bopomofo without tone as pinyin; ü is v behind l and n.

    >>> pinyin_of("ㄋㄩ"), pinyin_of("ㄐㄩㄝ"), pinyin_of("ㄧㄡ"), pinyin_of("ㄓ")
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
