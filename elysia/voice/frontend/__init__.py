"""The text front end: markup is stripped, numbers are written out, words become phonemes.

`normalize_text` gives the words that are spoken, `clean_text` their symbols for a VITS model,
`explain_steps` every step in between. Works on pypinyin, jieba, eng_to_ipa and num2words; no model is
needed.
"""

from elysia.voice.frontend.cleaners import CLEANERS, SYMBOLS, CleanedText, clean_text
from elysia.voice.frontend.language_id import detect_language, split_languages
from elysia.voice.frontend.pipeline import explain_steps, normalize_text
from elysia.voice.frontend.strip_markup import strip_markup

__all__ = [
    "CLEANERS",
    "SYMBOLS",
    "CleanedText",
    "clean_text",
    "detect_language",
    "explain_steps",
    "normalize_text",
    "split_languages",
    "strip_markup",
]
