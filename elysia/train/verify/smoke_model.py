"""Builds a config's whole training with a tiny model and three rows in place of what it names.

`check-configs --build` tries in this way, in a second, whether a config that was converted can be trained.
All that training builds is built; only sizes differ.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elysia.core.errors import DataError, nearest
from elysia.models import loading, tiny
from elysia.models.chat_format import AUTO

SettingValues = dict[str, Any]

_TEXT = "Tell me what the sea is like. It is wide and blue, and the wind is never quite still."
_TALK = [{"from": "human", "value": "How are you?"}, {"from": "gpt", "value": _TEXT}]
_REACT = [{"from": "user", "value": "How are you?"}, {"from": "assistant", "value": _TEXT}]
_MESSAGES = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": _TEXT}]
_INSTRUCTION = {"instruction": "Say it.", "input": "", "output": _TEXT}
_MOSS = {"Human": "<|Human|>: How are you?<eoh>\n", "Tool Responses": "<|Results|>:\nfine<eor>\n",
         "MOSS": f"<|MOSS|>: {_TEXT}<eom>\n"}  # fmt: skip
_PAIR = {"chosen": _TEXT, "rejected": "It is water."}
_TALKS = {
    key: [_MESSAGES[0], {"role": "assistant", "content": text}] for key, text in _PAIR.items()
}
# One row of every dataset format.
SAMPLE_ROWS: dict[str, Any] = {
    "alpaca": _INSTRUCTION,
    "alpaca_zh": {f"{key}_zh": value for key, value in _INSTRUCTION.items()},
    "arxiv": {"abstract": _TEXT, "title": "On the sea"},
    "code_alpaca": {"prompt": "Print a line.", "completion": "print('a line')"},
    "colors": {"description": "Sea: deep blue", "color": "#000080"},
    "crime_kg_assitan": {"input": "How are you?", "output": _TEXT},
    "crime_kg_assitant": {"input": "How are you?", "output": _TEXT},
    "default": {"input": "How are you?", "output": _TEXT},
    "intel_orca_dpo": {"system": "Be brief.", "question": "How are you?", **_PAIR},
    "law_reference": {"question": "How are you?", "answer": _TEXT},
    "medical": _INSTRUCTION,
    "msagent_react": {"conversations": json.dumps(_REACT)},
    "moss_sft": {"meta_instruction": _TEXT, "num_turns": 1, "chat": {"turn_1": _MOSS}},
    "oasst1": {"text": f"### Human: How are you? ### Assistant: {_TEXT}"},
    "openai": {"messages": _MESSAGES},
    "openai_lines": _MESSAGES,
    "openorca": {"system_prompt": "Be brief.", "question": "How?", "response": _TEXT},
    "orpo_dpo_mix_40k": _TALKS,
    "preference": {"prompt": "How are you?", **_PAIR},
    "preference_alpaca": {"instruction": "Say it.", **_PAIR},
    "preference_sharegpt": {
        "conversations": _TALK[:1],
        **{key: {"from": "gpt", "value": _PAIR[key]} for key in _PAIR},
    },
    "pretrain": {"text": _TEXT},
    "sharegpt": {"conversations": _TALK},
    "sql": {"context": "CREATE TABLE t (a INT)", "question": "All?", "answer": "SELECT a FROM t"},
    "stack_exchange": {"question": "How are you?", "response": _TEXT},
    "tiny_codes": {"prompt": "Print a line.", "response": "print('a line')"},
    "tokens": {"tokens": [-5, -6, *range(200, 240)]},
    "wizardlm": {"conversations": _TALK},
    "xtuner": {"conversation": [{"input": "How are you?", "output": _TEXT}]},
}
_MMLU = {"input": f"{_TEXT}\nA. yes\nB. no\nAnswer:", "output": "A", "subject": "weather"}
# Layers that adapters may name and a Llama lacks, and the architecture that has them.
_FAMILIES = {"c_attn": "gpt_bigcode", "c_proj": "gpt_bigcode"}


_run_numbers = itertools.count()


def substitute_tiny_model(values: SettingValues, folder: Path) -> SettingValues:
    """Settings with a tiny model and three rows for each source in place of their own.

    folder: models and rows are stored there, and used again for the next config. Three rows make one step
    in one process; replies of evaluation chats are two tokens long.
    """
    targets = values.get("lora_target_modules", "all-linear")
    family = next((_FAMILIES[t] for t in targets if t in _FAMILIES), "llama")
    model = _get_tiny_model(folder, family)
    changed: SettingValues = {
        "pretrained_model_name_or_path": str(model),
        "tokenizer_name_or_path": str(model) if values.get("tokenizer_name_or_path") else "",
        "data_path": [_replace_source(source, folder) for source in values["data_path"]],
        "dataloader_num_workers": 0,
        "max_steps": 1,
        "sequence_parallel_size": 1,
        "evaluation_max_new_tokens": 2,
    }
    if values.get("prompt_template", AUTO) == AUTO:  # the tiny model carries no template
        changed["prompt_template"] = "internlm2_chat"
    if values.get("mmlu_path"):
        changed["mmlu_path"] = str(_write_rows(folder / "mmlu.json", [_MMLU] * 3))
    return values | changed


def build_smoke_run(values: SettingValues, folder: Path, name: str) -> None:
    """Build all that training `substitute_tiny_model(values)` needs: model, data, optimizer, schedule, hooks.

    Raises what training would raise; DataError when its first batch teaches nothing.
    """
    from elysia.train.config.settings import build_settings
    from elysia.train.engine.loop import count_labelled_tokens
    from elysia.train.launch import build_runner

    settings = build_settings(substitute_tiny_model(values, folder), name)
    # MMEngine hands a run of the same name in the same second the logger of the one before.
    runner = build_runner(settings, f"{name}_{next(_run_numbers)}", folder / "work")
    if not count_labelled_tokens(runner.build()):
        raise DataError("train.smoke_nothing_learned", name=name)


def _replace_source(source: dict[str, Any], folder: Path) -> dict[str, Any]:
    name = source["format"]
    if name not in SAMPLE_ROWS:
        if Path(str(source["path"])).exists():
            return source
        raise DataError(
            "train.smoke_unknown_rows",
            path=source["path"],
            name=name,
            nearest=nearest(name, SAMPLE_ROWS),
        )
    renamed = {new: old for old, new in source.get("columns", {}).items()}
    row = SAMPLE_ROWS[name]
    if renamed:
        row = {renamed.get(key, key): value for key, value in row.items()}
    copied: SettingValues = {key: source[key] for key in ("format", "repeat", "limit", "columns", "bot_name")
            if key in source}  # fmt: skip
    file = folder / f"{name}_{len(renamed)}{'.jsonl' if name == 'openai_lines' else '.json'}"
    return {"path": str(_write_rows(file, [row] * 3)), **copied}


def _write_rows(file: Path, rows: list[Any]) -> Path:
    if file.suffix == ".jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    else:
        file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def _get_tiny_model(folder: Path, family: str) -> Path:
    """A model of two layers, which the first call writes."""
    target = folder / family
    if (target / "config.json").is_file():
        return target
    text = folder / "text.txt"
    text.write_text(f"{_TEXT}\n", encoding="utf-8")
    with _silence_warnings():
        words = tiny.train_tokenizer([text], 400, folder / "tokenizer", overwrite=True)
        tokenizer = loading.load_tokenizer(words)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
        tokenizer.save_pretrained(words)
        if family == "llama":
            return tiny.init_model(
                target, tokenizer=words, architecture=family, hidden_size=64, layers=2, heads=4
            )
        return _init_other_family(target, tokenizer, family)


def _init_other_family(target: Path, tokenizer: Any, family: str) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), n_embd=64, n_layer=2, n_head=4, n_positions=2048,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    loading.save_model(AutoModelForCausalLM.from_config(config), tokenizer, target)
    return target


@contextmanager
def _silence_warnings() -> Iterator[None]:
    """Without the tokenizer's warning that so little text gives few pieces."""
    logger = logging.getLogger("elysia")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
