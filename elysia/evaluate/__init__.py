"""Measuring how well a model plays its character: likelihood, text, identity, the persona scorecard."""

from importlib import import_module
from typing import Any

__all__ = [
    "EvaluationData",
    "PersonaScorecard",
    "ReplyScorer",
    "judge_identity",
    "judge_ordinary",
    "quick_eval",
    "read_reply_examples",
    "score_model",
]

_MODULES = {
    "EvaluationData": "scorecard",
    "PersonaScorecard": "scorecard",
    "ReplyScorer": "likelihood",
    "judge_identity": "identity",
    "judge_ordinary": "identity",
    "quick_eval": "scorecard",
    "read_reply_examples": "eval_data",
    "score_model": "scorecard",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: most of these modules need torch, which takes seconds.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
