"""Measuring how well a model plays its character: likelihood, text, identity, the persona scorecard."""

from elysia.core.lazy_imports import build_getattr

# Imported on first use: most of these modules need torch, which takes seconds.
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

__all__ = list(_MODULES)
__getattr__ = build_getattr(__name__, _MODULES)
