"""The README.md of an adapter folder: a Hugging Face model card that states only what is known.

Format: https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elysia.core.run_card import RunCard

README = """\
---
{front_matter}
---

# Adapter of {base}

{adapter}

## Use

{use}

## Training

{training}

## Licence

No licence has been chosen for this adapter. It is made from the base model and from
the training data, and their licences bind it: choose one that both allow, and put it
into the first lines of this file before you publish it.
"""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def render_adapter_readme(card: RunCard, lora: Mapping[str, Any]) -> str:
    """The model card of an adapter, from its run card and its adapter_config.json."""
    return README.format(
        front_matter="\n".join(_build_front_matter(card)),
        base=_shorten(card.base_model),
        adapter=_describe_adapter(card, lora),
        use="\n".join(_describe_use(card)),
        training="\n".join(_describe_training(card, lora)),
    )


def detect_languages(text: str) -> list[str]:
    """Languages of a text, as far as its script shows: zh for Han characters, en for Latin words.

    >>> detect_languages("你是 Elysia"), detect_languages("You are Elysia."), detect_languages("")
    (['zh'], ['en'], [])
    """
    languages = []
    if re.search(r"[\u4e00-\u9fff]", text):
        languages.append("zh")
    if re.search(r"[A-Za-z]+[ ,][A-Za-z]+", text):
        languages.append("en")
    return languages


def _build_front_matter(card: RunCard) -> list[str]:
    base = card.base_model
    if _HUB_NAME.fullmatch(base) and not Path(base).exists():
        lines = [f"base_model: {base}"]
    else:  # the hub refuses a base_model that is none of its names
        lines = [f"# base_model: put the hub's name of {json.dumps(base)} here, to publish"]
    lines.append("library_name: peft")
    lines.append("pipeline_tag: text-generation")
    languages = detect_languages(card.system)
    if languages:
        lines += ["language:", *(f"- {language}" for language in languages)]
    lines.append("# license: choose one that the base and the data allow")
    lines += ["tags:", "- lora", *(["- qlora"] if card.method == "qlora" else []), "- persona"]
    return lines


def _describe_adapter(card: RunCard, lora: Mapping[str, Any]) -> str:
    kind = "QLoRA (4-bit NF4 base)" if card.method == "qlora" else "LoRA"
    if lora.get("use_dora"):
        kind = kind.replace("LoRA", "DoRA")
    return (
        f"A {kind} adapter of rank {lora['r']} (alpha {lora['lora_alpha']}) for "
        f"`{card.base_model}`, trained with elysia {card.versions.get('elysia', '')}".rstrip()
        + ". It works on that base only; the fingerprint of its weights is in `run_card.json`."
    )


def _describe_use(card: RunCard) -> list[str]:
    lines = [
        "```bash",
        f"elysia chat {card.base_model} --adapter .",
        "```",
        "",
        "Template, stop words and system prompt are read from `run_card.json`. Elsewhere, load it",
        "with `peft.PeftModel.from_pretrained` and write prompts exactly so:",
        "",
        *_fence(card.template.get("instruction", "")),
    ]
    if card.stop_words:
        lines += ["", "Stop at " + ", ".join(f"`{word}`" for word in card.stop_words) + "."]
    if card.system:
        lines += ["", "System prompt:", "", *_fence(card.system)]
    return lines


def _describe_training(card: RunCard, lora: Mapping[str, Any]) -> list[str]:
    lines = ["| | |", "|---|---|"]
    lines.append(f"| target modules | {', '.join(sorted(lora['target_modules']))} |")
    lines.append(f"| template | {card.template.get('name', 'unknown')} |")
    for data in card.datasets:
        rows = f", {data['rows']} rows" if "rows" in data else ""
        lines.append(f"| data | {_shorten(str(data.get('path', '')))}{rows} |")
    for name, value in card.metrics.items():
        if isinstance(value, int | float):
            lines.append(f"| {name} | {value:.6g} |")
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    lines.append(f"| versions | {versions or 'unknown'} |")
    lines.append(f"| created | {card.created} |")
    return lines


def _fence(text: str) -> list[str]:
    """A code block, its fence longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *text.splitlines(), fence]


def _shorten(path: str) -> str:
    """The last part of a local path, which reveals nothing about the machine; a hub name unchanged."""
    return path if _HUB_NAME.fullmatch(path) else (Path(path).name or path)
