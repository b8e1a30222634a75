"""docs/settings.md from the dataclass: `python scripts/settings_doc.py > docs/settings.md`.

Names, types, defaults, groups and remarks come from the source of elysia/train/config/settings.py, least
values from its table of ranges. NOTES says in a line what each setting does. Knows no configs.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TRAIN = Path(__file__).resolve().parents[1] / "elysia" / "train"

INTRO = """\
# Settings

Written by `python scripts/settings_doc.py > docs/settings.md`; do not edit.

A config file sets these names and nothing else. `_base_ = ['./other.py']` inherits, and a child's
value is the one that trains; `--cfg-options name=value` on the command line comes last. A name that
is not listed here is refused with the nearest one, a value of the wrong type with what was wanted.
Two have no default: `pretrained_model_name_or_path` and `data_path` must be set.

Lengths are in tokens. A *step* is one optimizer step: `accumulative_counts` micro-batches of
`batch_size` rows on every device. `xtuner check-custom-dataset CONFIG` reads all data of a config
before anything is trained; the expanded MMEngine config of a run lies in its work dir.
"""

NOTES = {
    "pretrained_model_name_or_path": "A local folder, or `owner/name` on the hub.",
    "tokenizer_name_or_path": "A tokenizer other than the model's own; the model must have an embedding "
    "for each of its tokens.",
    "eos_token": "A token of the tokenizer that ends a reply, in place of its own.",
    "hub": "Where names lead. ModelScope wants `pip install modelscope`.",
    "data_path": "A dataset file (.json, .jsonl, .csv, .parquet; .txt for plain text), a folder of "
    "them, or `owner/name` of a dataset on the hub; or a list of those and of "
    "`dict(path=…, format=…, repeat=…, limit=…)`. "
    "`repeat` weighs a source (0.5: half of its rows), `weight` its share of the rows beside other sources with one ([mixing](data.md#mixing)); `split`, `subset` and `files` choose within a "
    "folder or hub dataset, `columns` renames keys, old to new.",
    "dataset_format": "What a row looks like: `xtuner list-dataset-format`; or `FILE.py:NAME`, a map "
    "function of your own, which returns XTuner's `conversation` (of pairs: `prompt`, `chosen`, "
    "`rejected`). A source's own `format` wins.",
    "prompt_template": "How a conversation becomes text: [templates.md](templates.md); or a template "
    "written out, `dict(name=…, system=…, instruction=…, suffix=…, …)`. "
    "It travels in the run card, so chat needs no flag.",
    "SYSTEM": "The system prompt, put before rows that have none.",
    "persona": "A character card (V1, V2, V3, JSON): [persona.md](persona.md).",
    "max_length": "Of a pack, and of the longest row.",
    "pack_to_max_length": "Rows share a pack, whole, and never see each other. "
    "False: a row a pack.",
    "overlong": "What happens to a row longer than `max_length`: it is refused by name, left out, "
    "loses whole last turns, or all tokens past the limit. Documents (`pretrain`) are divided "
    "instead.",
    "sampler": "The order of rows; `length_grouped` puts packs of like length in one micro-batch.",
    "train_on_prompt": "Off, replies alone are learned. On suits a base that has yet to learn to read.",
    "heldout": "Never trained on; their loss is measured every `evaluation_freq` steps.",
    "map_num_proc": "1 makes them in the training's own process. Rows and errors come in the same order whatever it is.",
    "token_cache_gb": "What all kept tokens may take; those that were not used for longest go first.",
    "token_cache": "A file whose content, template or tokenizer changed is tokenized anew; False keeps nothing on disk.",
    "method": "4-bit base and LoRA, 16-bit base and LoRA, or every weight.",
    "lora_r": "Rank of the adapter.",
    "lora_alpha": "The adapter's effect is scaled by alpha / r.",
    "lora_dropout": "Between base and adapter, in training only.",
    "lora_target_modules": "`'all-linear'` is every linear layer but the head; "
    "or a list of layer names.",
    "use_dora": "DoRA: each row's length trains apart from its direction. Slower; not under ZeRO-3.",
    "use_rslora": "Scale by alpha / sqrt(r) instead: a high rank keeps its strength.",
    "loraplus_lr_ratio": "A's factors, magnitudes and heads keep `lr`.",
    "double_quant": "Quantize the 4-bit scales as well: some 0.4 bits less a weight.",
    "dtype": "Of matrix products. auto: bfloat16 where the device has it natively, else float16 "
    "on CUDA and float32 on a CPU. Trained weights stay in float32 beside it.",
    "attention": "auto is `segments`: each row attends to itself alone. `sdpa` and `eager` pad "
    "rows instead; `flash_attention_2` wants its own package.",
    "neftune_noise_alpha": "NEFTune's noise on the embeddings while training.",
    "objective": "What is learned: replies (`sft`), which of two is preferred (`dpo`, `orpo`), or a number for it (`reward`): "
    "[methods.md](methods.md).",
    "dpo_beta": "How dearly DPO pays for leaving the reference model: lower strays further.",
    "dpo_loss_type": "DPO's own loss, its form for wrong labels, SLiC's hinge, or IPO (per token; overfits less).",
    "dpo_label_smoothing": "The share of pairs that may be labelled the wrong way round.",
    "orpo_lambda": "Weight of ORPO's odds ratio beside the chosen reply's loss.",
    "sequence_parallel_size": "How many processes share a row, each with its slice, for rows too long "
    "for one GPU; attention exchanges slices for heads (Ulysses). It must divide the processes and the "
    "model's heads.",
    "reward_loss_type": "Bradley-Terry's, or InternLM2's focal one, to which pairs that are told apart "
    "count less.",
    "reward_penalty": "Keeps rewards small: within 5 of 0, or by their squares.",
    "reward_penalty_weight": "Weight of that penalty beside the loss.",
    "gradient_checkpointing": "Recompute activations in backward: less memory, slower.",
    "torch_compile": "Compile the decoder layers, all but attention: [methods.md](methods.md#kernels). Not with "
    "`use_dora`, `flash_attention_2` or ZeRO-3; never measured on a GPU.",
    "liger_kernel": "Liger's kernels for norms, rotations and gates of InternLM2, Llama and Qwen2: "
    "[methods.md](methods.md#kernels). Never run on a GPU here.",
    "batch_size": "Packs of a micro-batch.",
    "accumulative_counts": "Micro-batches of a step, weighted by their labelled tokens.",
    "dataloader_num_workers": "Processes that load data; it is tokenized already, so 0 serves.",
    "max_epochs": "Times through the data.",
    "max_steps": "Stop after so many steps.",
    "optimizer": "A class by its dotted name, such as `bitsandbytes.optim.PagedAdamW8bit`.",
    "lr": "Highest learning rate: warm-up to it, then `lr_schedule`, by step.",
    "betas": "AdamW's.",
    "weight_decay": "AdamW's.",
    "max_norm": "Of the gradients of a step.",
    "lr_schedule": "How the rate falls after the warm-up.",
    "min_lr": "The last step's rate.",
    "warmup_steps": "The warm-up in steps.",
    "warmup_ratio": "Share of the steps; above 0 it is at least one step.",
    "save_steps": "A checkpoint every so many steps, and one at the end.",
    "save_total_limit": "The newest so many stay; 0 keeps all.",
    "logging_interval": "Steps between two lines of the log.",
    "report_to": "Where scalars go beside the log and TensorBoard: `wandb`, `swanlab` or both, installed by yourself; they read "
    "their keys from their own login.",
    "evaluation_freq": "Steps between evaluation chats, and between held-out losses.",
    "evaluation_inputs": "Questions to answer while training, into "
    "`vis_data/eval_outputs_iter_N.txt`.",
    "evaluation_max_new_tokens": "Longest reply to them, and to what `persona_freq` asks.",
    "evaluation_system": "The system prompt of evaluation chats.",
    "persona_freq": "Steps between two measurements of `persona` ([scorecard](scorecard.md#while-it-trains)): "
    "her held-out replies against the base, the next line, identity, leaks, copying, forgetting.",
    "persona_heldout": "Rows of the character that are never trained on, in any dataset format.",
    "persona_general": "General rows that are never trained on: forgetting.",
    "persona_limit": "Replies of each of the two that are read.",
    "persona_tradeoff": "Weights of measures, whose sum says which step is best; `{}`: voice_gain + identity - leak - general_lost.",
    "persona_patience": "Stop once so many measurements were no better than the best, whose checkpoint stays as "
    "`best_checkpoint`, which conversion takes.",
    "mmlu_path": "Rows of `input` (the whole prompt), `output` (A to D) and `subject`; the share of right "
    "answers goes into the log and `vis_data/mmlu_iter_N.txt`.",
    "seed": "Of adapters, held-out rows, packs, order and dropout. `--seed` sets it, too.",
    "overrides": "Merged last into the expanded MMEngine config; nested keys as `a.b`.",
}


class Row(NamedTuple):
    """One setting as the source has it."""

    group: str
    name: str
    type: str
    default: str
    remark: str


def rows(source: str) -> Iterator[Row]:
    """The fields of the class Settings, in order; a comment on a line of its own opens a group."""
    lines = source.splitlines()
    tree = ast.parse(source)
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Settings").body
    group, line = "", body[0].lineno
    for node in body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        for between in lines[line : node.lineno - 1]:
            group = between.strip().removeprefix("#").strip() or group
        line = node.end_lineno or node.lineno
        # Behind the node only a comment can follow.
        code = lines[line - 1].encode()
        remark = code[node.end_col_offset :].decode().strip().removeprefix("#").strip()
        group = "Other" if node.target.id == "seed" else group
        yield Row(group, node.target.id, ast.unparse(node.annotation), shown(node.value), remark)


def shown(default: ast.expr | None) -> str:
    """A default as a config would write it."""
    if default is None:
        return ""
    text = ast.unparse(default)
    factory = re.fullmatch(r"field\(default_factory=(\w+)\)", text)
    return {"list": "[]", "dict": "{}"}[factory[1]] if factory else text


def least(source: str) -> dict[str, str]:
    """Name to smallest value, from the table of ranges."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "AT_LEAST":
            table = ast.literal_eval(node.value) if node.value else {}
            return {name: f"{value:g}" for name, value in table.items()}
    return {}


def page() -> str:
    """docs/settings.md."""
    names = (TRAIN / "settings.py").read_text(encoding="utf-8")
    ranges = (TRAIN / "checks.py").read_text(encoding="utf-8")
    parts, group, smallest = [INTRO], "", least(ranges)
    for row in rows(names):
        if row.group != group:
            group = row.group
            parts.append(f"\n## {group}\n\n| name | type | default | |\n|---|---|---|---|\n")
        kind = row.type.replace("|", "\\|")
        kind = re.sub(r"Literal\[(.*)\]", lambda found: found[1].replace(", ", "`, `"), kind)
        notes = [NOTES.get(row.name, "")]
        notes += [row.remark[:1].upper() + row.remark[1:] + "."] if row.remark else []
        notes += [f"At least {smallest[row.name]}."] if row.name in smallest else []
        default = f"`{row.default}`" if row.default else ""
        parts.append(f"| `{row.name}` | `{kind}` | {default} | {' '.join(filter(None, notes))} |\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
