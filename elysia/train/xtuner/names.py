"""What both data and hooks of a config of XTuner's name: the tokenizer and the prompt template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elysia.core.errors import TemplateError
from elysia.core.templates import get_template
from elysia.train.xtuner.report import Part, Report
from elysia.train.xtuner.symbols import template_name

# Text goes in as it is: what XTuner does where a config names no template.
NO_TEMPLATE = {"name": "none", "system": "{system}\n", "instruction": "{input}"}


def tokenizer(value: Any, where: str, report: Report) -> None:
    """A tokenizer's settings; every one in a config must be the same."""
    values = report.values
    part = Part(value, where, report)
    part.kind("AutoTokenizer.from_pretrained", "LlamaTokenizer.from_pretrained")
    name = part.take("pretrained_model_name_or_path", "")
    eos = part.take("eos_token") or ""
    # Rows are packed, markup is encoded as it stands, and no remote code is run.
    part.ignore("padding_side", "trust_remote_code", "encode_special_tokens", "use_fast")
    part.done()
    if name == values.get("pretrained_model_name_or_path"):
        name = ""
    told = (values.setdefault("tokenizer_name_or_path", name), values.setdefault("eos_token", eos))
    if told != (name, eos):
        report.refuse(f"{where} is another tokenizer than the config's others")


def template_map(value: Any, where: str, report: Report) -> Any:
    """The template of a `template_map_fn`."""
    part = Part(value, f"{where}.template_map_fn", report)
    part.kind("template_map_fn_factory", "template_map_fn")
    template = template_of(part.take("template"), part.where, report)
    part.done()
    return template


def template_of(value: Any, where: str, report: Report) -> Any:
    """A template's name, or its fields where the config writes them out; None for none."""
    if value is None:
        return None
    chosen: Any = template_name(value) or value
    if isinstance(value, Mapping):
        chosen = {"name": "custom", "system": "{system}\n"}
        chosen |= {key.lower(): text for key, text in value.items()}
        for agents in ("success", "failure", "tool"):  # nothing that training reads
            chosen.pop(agents, None)
    try:
        get_template(chosen)
    except TemplateError as error:
        report.refuse(f"{where}: {str(error).rstrip('.')}")
        return None
    return chosen
