"""The words of the pages: a visitor's language, and errors that are shown in it."""

from __future__ import annotations

import pytest

from elysia.chat.generation.speaker_selection import SelectionReason
from elysia.chat.message_tree import ChatMessage, MessageState, pack_text
from elysia.core.errors import ElysiaError, PersonaError, UsageError
from elysia.core.i18n import LANGUAGES, load_table
from elysia.web import i18n
from elysia.web.i18n import get_translator


def test_every_word_of_the_pages_is_there_in_both_languages():
    table = {code: entry for code, entry in load_table().items() if code.startswith("web.")}
    assert len(table) > 100 and set(i18n.LANGUAGES) == set(LANGUAGES)
    for code, entry in table.items():
        assert set(entry) == set(LANGUAGES), code
        assert all(text.strip() for text in entry.values()), code


@pytest.mark.parametrize("language", ["zh", "en"])
def test_words_take_their_values(language):
    assert "7" in get_translator(language)("earlier", count=7)


def test_every_reason_to_speak_has_words_on_the_page():
    pytest.importorskip("streamlit", reason="Streamlit is not installed")
    from elysia.web.streamlit.breakdown_view import REASON_KEYS

    assert set(REASON_KEYS) == set(SelectionReason)
    assert all(f"web.{key}" in load_table() for key in REASON_KEYS.values())


def failed(error: ElysiaError | None, sentence: str) -> ChatMessage:
    details = {"error": pack_text(error)} if error else {}
    return ChatMessage("r", "u", "assistant", "elysia", "", MessageState.FAILED, sentence, details)


def test_a_stored_error_is_shown_in_the_language_of_who_reads_it():
    inner = UsageError("chat.message_too_long", length=7, limit=5)
    error = PersonaError("chat.card_unusable", file="x.png", error=inner)
    message = failed(error, str(error))
    assert message.render_fault("en") == str(error)
    assert message.render_fault("zh") == "x.png 不能用：这条消息有 7 个字符，最多可以发 5 个。"


@pytest.mark.parametrize(
    "error", [None, UsageError("chat.of_another_version", x=1), UsageError("A sentence.")]
)
def test_an_error_without_a_known_code_is_shown_as_it_was_stored(error):
    """Rows of older versions have a sentence alone; a newer version may have stored a code."""
    message = failed(error, "A sentence.")
    assert message.render_fault("zh") == message.render_fault("en") == "A sentence."
