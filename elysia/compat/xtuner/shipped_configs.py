"""The configs that ship with XTuner 0.2.0, by name: what each one trains, as settings of this project.

`shipped_configs.json` beside this module is written by scripts/xtuner_configs.py from the wheel. It holds
`common` (the value that most configs have, by setting), and for each config what is different in it;
datasets, changes and needs are kept once and numbered. XTuner's own texts are not in it: system prompts
stand there by their template's name (one that a config writes out is left out), and the questions of
evaluation chats are ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from elysia.compat.xtuner.convert import has_cuda
from elysia.compat.xtuner.report import ConversionReport
from elysia.core.templates import SYSTEM_TEMPLATES

TABLE = Path(__file__).with_suffix(".json")

# What evaluation chats ask, by the data's format; "" is for every format that is not named.
EVALUATION_INPUTS = {
    "": ["请给我介绍五个上海的景点", "Please tell me five scenic spots in Shanghai"],
    "pretrain": ["春天到来的时候，", "When spring comes,"],
    "code_alpaca": ["用Python写一个判断质数的函数。", "Write a Python function that sorts a list of words."],
    "tiny_codes": ["用Python写一个判断质数的函数。", "Write a Python function that sorts a list of words."],
    "medical": ["感冒发烧时应该注意什么？", "How can I sleep better at night?"],
    "colors": ["给我一种像秋天枫叶那样的颜色。", "Give me a warm and gentle orange."],
    "sql": ["CREATE TABLE pets (name TEXT, age INT)\nHow many pets are older than three?"],
    "arxiv": ["We measure how small language models learn a speaking style from few examples."],
}  # fmt: skip


def list_shipped_configs() -> list[str]:
    """The names of the configs that can be trained here, sorted."""
    return list(_load_table()["configs"])


def list_unsupported_configs() -> dict[str, str]:
    """{name: why it cannot be trained here} of the others."""
    return dict(_load_table()["unsupported"])


def read_shipped_config(name: str, device: str = "auto") -> ConversionReport | None:
    """The settings of a config by its name, with what is different from XTuner and what is needed first;
    None when XTuner ships none of that name that can be trained here.

    device: "cpu", "cuda", or "auto" for this machine's: a CPU has no float16.
    """
    table = _load_table()
    if name not in table["configs"]:
        return None
    row = dict(table["configs"][name])
    report = ConversionReport()
    report.changes = dict(table["changes"][index] for index in row.pop("changes"))
    report.needs = [table["needs"][index] for index in row.pop("needs")]
    data = [dict(source) for source in table["data"][row.pop("data")]]
    report.values = {**table["common"], **row, "data_path": data}
    _put_texts(report.values)
    if report.values["dtype"] == "float16" and not has_cuda(device):
        report.values["dtype"] = "auto"
        report.change("float16", "AmpOptimWrapper on a CPU: dtype = 'auto' (bfloat16 or float32) in "
                      "place of float16")  # fmt: skip
    return report


def pack_configs(
    configs: Mapping[str, ConversionReport], unsupported: Mapping[str, str]
) -> dict[str, Any]:
    """The table of configs: the inverse of `read_shipped_config`.

    configs: reports by name, whose `values` hold each setting that any of them sets.
    """
    plain = {name: _take_texts(report.values) for name, report in configs.items()}
    common = _most_frequent(list(plain.values()))
    data: list[Any] = []
    changes: list[Any] = []
    needs: list[Any] = []
    rows = {}
    for name, values in sorted(plain.items()):
        report = configs[name]
        rows[name] = {
            "data": _number(values.pop("data_path"), data),
            "changes": [_number([k, str(v)], changes) for k, v in report.changes.items()],
            "needs": [_number(str(need), needs) for need in report.needs],
            **{key: value for key, value in values.items() if value != common[key]},
        }
    return {
        "common": common, "data": data, "changes": changes, "needs": needs, "configs": rows,
        "unsupported": dict(sorted(unsupported.items())),
    }  # fmt: skip


def _most_frequent(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By setting, the value that most rows have; data, which differ, are left out."""
    common = {}
    for key in [key for key in rows[0] if key != "data_path"]:
        texts = [json.dumps(row[key], ensure_ascii=False, sort_keys=True) for row in rows]
        common[key] = json.loads(max(sorted(set(texts)), key=texts.count))
    return common


def _number(value: Any, known: list[Any]) -> int:
    """The place of a value in `known`, to which it is added when it is new."""
    if value not in known:
        known.append(value)
    return known.index(value)


def _take_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without XTuner's own texts: a system prompt by its template's name ("" for one that has
    none), no questions."""
    plain = {key: value for key, value in values.items() if key != "evaluation_inputs"}
    names = {text: name for name, text in SYSTEM_TEMPLATES.items()}
    system = plain["evaluation_system"]
    plain["evaluation_system"] = names.get(system, "")
    plain["evaluation_chats"] = bool(values["evaluation_inputs"])
    return plain


def _put_texts(values: dict[str, Any]) -> None:
    """The inverse of `_take_texts`, with questions of ours."""
    if values["evaluation_system"]:
        values["evaluation_system"] = SYSTEM_TEMPLATES[values["evaluation_system"]]
    if values.pop("evaluation_chats"):
        questions = EVALUATION_INPUTS.get(values["dataset_format"], EVALUATION_INPUTS[""])
        values["evaluation_inputs"] = list(questions)


@cache
def _load_table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table
