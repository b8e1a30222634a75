"""Which prompt templates suit a model, for a warning. Knows nothing of what a template holds."""

from __future__ import annotations

import re

# Searched in order; the first rule whose two patterns match the model's type and its name decides.
# A llama may be anyone's, so its name must speak; an InternLM2 or a Qwen speaks ChatML whatever
# its name.
_FITTING: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (r"internlm[23]", "", ("internlm2_chat",)),
    (r"internlm", "", ("internlm_chat",)),
    (r"qwen", "", ("qwen_chat",)),
    (r"chatglm", r"chatglm2", ("chatglm2",)),
    (r"chatglm", r"chatglm3", ("chatglm3",)),
    (r"baichuan", r"baichuan-?2", ("baichuan2_chat",)),
    (r"baichuan", "", ("baichuan_chat",)),
    (r"gemma", "", ("gemma",)),
    (r"cohere", "", ("cohere_chat",)),
    (r"phi3", "", ("phi3_chat",)),
    (r"minicpm3", "", ("minicpm3",)),
    (r"minicpm", r"minicpm-?3", ("minicpm3",)),
    (r"minicpm", "", ("minicpm",)),
    (r"deepseek_v2", "", ("deepseek_v2",)),
    (r"deepseek", r"moe", ("deepseek_moe",)),
    (r"mixtral", "", ("mixtral", "mistral")),
    (r"mistral", r"zephyr", ("zephyr",)),
    (r"mistral", "", ("mistral", "mixtral")),
    (r"llama", r"llama-?3", ("llama3_chat",)),
    (r"llama", r"code-?llama", ("code_llama_chat",)),
    (r"llama", r"llama-?2", ("llama2_chat",)),
    (r"llama", r"vicuna", ("vicuna", "wizardlm")),
    (r"llama", r"wizard-?coder", ("wizardcoder",)),
    (r"llama", r"wizard", ("wizardlm", "vicuna")),
    (r"llama", r"deepseek-?coder", ("deepseek_coder", "deepseekcoder")),
)


def fitting(model_type: str, name_or_path: str) -> tuple[str, ...]:
    """Names of the templates that suit a model, by its config's `model_type` and its name; or ().

    A guess for a warning ("this template is another model's"), never a choice made for the user.

    >>> fitting("internlm2", "./tiny")
    ('internlm2_chat',)
    >>> fitting("llama", "meta-llama/Meta-Llama-3-8B-Instruct")
    ('llama3_chat',)
    >>> fitting("llama", "./my-model")
    ()
    """
    kind, name = model_type.lower(), name_or_path.lower().replace("_", "-")
    for type_pattern, name_pattern, templates in _FITTING:
        if re.match(type_pattern, kind) and re.search(name_pattern, name):
            return templates
    return ()
