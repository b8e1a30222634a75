"""The words of the pages in a visitor's language. The table is `core/locales/web.toml`."""

from __future__ import annotations

from collections.abc import Callable

from elysia.core.i18n import render

LANGUAGES = {"zh": "中文", "en": "English"}


def get_translator(language: str) -> Callable[..., str]:
    """A function from a key of `web.toml` (and values for its placeholders) to words.

    >>> t = get_translator("en")
    >>> t("seat"), t("start_group", count=2)
    ('Add to the group', 'Start a group chat (2)')
    """

    def translate(key: str, **values: object) -> str:
        return render(f"web.{key}", values, language)

    return translate


def negotiate_language(accepted: str) -> str:
    """zh or en, from a locale or an Accept-Language header.

    >>> [negotiate_language(header) for header in ("zh-CN,zh;q=0.9,en;q=0.8", "de, en;q=0.5", "")]
    ['zh', 'en', 'en']
    """
    return "zh" if accepted.strip().lower().startswith("zh") else "en"
