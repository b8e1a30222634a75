"""One exception type per kind of fault, each with a code and parameters for the sentence that the user reads.

The sentence says what is wrong, where (file, row, key) and what to do. The command line prints it and
exits with a non-zero status; a traceback appears for our own mistakes only.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from elysia.core.i18n import Text, render


class ElysiaError(Exception):
    """Any fault of the input or the environment.

    `code` names an entry of the table of sentences (`core.i18n`) and `params` fill it; `str(error)` is the
    English sentence, `error.render("zh")` the Chinese one. A program decides by type and code, never by
    the sentence.
    """

    def __init__(self, code: str, /, **params: Any) -> None:
        super().__init__(code)
        self.code = code
        self.params = params

    def render(self, language: str = "en") -> str:
        return render(self.code, self.params, language)

    def __str__(self) -> str:
        return self.render()


class UsageError(ElysiaError):
    """A command line that cannot be carried out as written."""


class ConfigError(ElysiaError):
    """A config with an unknown name, a wrong type or a value out of range."""


class DataError(ElysiaError):
    """A dataset that is missing, damaged or of another format."""


class TemplateError(ElysiaError):
    """An unknown prompt template, or a conversation it cannot render."""


class ModelError(ElysiaError):
    """A model or tokenizer that is missing, damaged or of an unknown architecture."""


class DeviceError(ElysiaError):
    """A device, port or build tool that is not there or cannot do what was asked."""


class CheckpointError(ElysiaError):
    """A training checkpoint that is missing, cut short or of another run."""


class ExportError(ElysiaError):
    """A conversion or merge that was refused, or whose proof failed."""


class RunCardError(ElysiaError):
    """A run card that is damaged or contradicts what it lies beside."""


class PersonaError(ElysiaError):
    """A character card that cannot be read."""


class EngineError(ElysiaError):
    """An engine that failed or refused while generating."""


class RequestError(EngineError):
    """A request that an engine will not honour, however often it is sent."""


class ContextError(RequestError):
    """A prompt that leaves no room for a reply."""


class StoreError(ElysiaError):
    """A database that is locked, damaged, of a newer version, or without what was asked for."""


class MemoryFault(ElysiaError):
    """A memory that is not there, or not in the scope that asks."""


class KnowledgeError(ElysiaError):
    """A document that cannot be read or is not on the shelf."""


class VoiceError(ElysiaError):
    """A voice that is missing, damaged, of an unknown kind, or failed while speaking."""


def nearest(name: str, choices: Iterable[str]) -> Text | str:
    """A clause to append to a sentence: the closest of `choices`, or nothing when none is close.

    >>> str(nearest("max_lenght", ["max_length", "lr"]))
    " Did you mean 'max_length'?"
    >>> nearest("zzz", ["max_length"])
    ''
    """
    matches = get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return Text("core.did_you_mean", {"name": matches[0]}) if matches else ""
