"""What is known of the base models that XTuner's configs name: which run only code of their own,
and which of their layers today's transformers has joined. Knows nothing of configs.
"""

from __future__ import annotations

import re

from elysia.train.xtuner.report import Report

# A pattern in the model's name -> the model type that transformers does not have.
_OWN_CODE = {
    r"^internlm/internlm-(chat-)?\d": "InternLM 1",
    r"baichuan": "Baichuan",
    r"chatglm[23]": "ChatGLM",
    r"^qwen/qwen-": "Qwen 1",
    r"minicpm-|minicpm_": "MiniCPM",
    r"deepseek-moe": "DeepSeek-MoE",
}
# Layers that the checkpoint has, and transformers' model has not as linear layers: (reason, names).
_GONE = {
    r"mixtral": ("its experts' weights are joined, and get no adapter", {"w1", "w2", "w3"}),
    r"starcoder": ("it exists only where a model attends to another", {"q_attn"}),
}


def own_code(name: str) -> str | None:
    """The family of a model that cannot be loaded without running code of its own.

    >>> own_code("Qwen/Qwen-7B-Chat"), own_code("Qwen/Qwen1.5-7B")
    ('Qwen 1', None)
    """
    for pattern, family in _OWN_CODE.items():
        if re.search(pattern, name, re.IGNORECASE):
            return family
    return None


def present_targets(targets: list[str], base: str, report: Report) -> list[str]:
    """`targets` without the layers that the base's model has no longer; a change names those."""
    for pattern, (why, gone) in _GONE.items():
        lost = [name for name in targets if name in gone]
        if lost and re.search(pattern, base, re.IGNORECASE):
            report.change("targets", f"target_modules {', '.join(lost)}: {why}")
            return [name for name in targets if name not in gone]
    return targets
