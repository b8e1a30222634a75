"""The words and files that every other package shares: messages, prompt templates, character cards and
their lorebooks, macros, run cards, errors, translations, paths and atomic writes.

Standard library only, so that a command answers before any model library is imported. Each module is
imported by its own name (`from elysia.core.messages import Message`).
"""

__all__ = [
    "card_convert",
    "card_file",
    "card_json",
    "charx",
    "errors",
    "files",
    "html_report",
    "i18n",
    "identity_claims",
    "lorebook",
    "lorebook_activation",
    "macros",
    "messages",
    "paths",
    "persona",
    "png",
    "run_card",
    "sillytavern_world",
    "sse",
    "template_table",
    "templates",
]
