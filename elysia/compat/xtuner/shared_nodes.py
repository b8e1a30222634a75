"""Nodes that several parts of a config name: the tokenizer, the prompt template, `load_dataset(…)`.

No file is opened; what is not there yet is named as a need.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elysia.compat.xtuner.report import ConfigNode, ConversionReport
from elysia.compat.xtuner.symbols import get_template_name
from elysia.core.errors import TemplateError
from elysia.core.templates import get_template
from elysia.data.sources import is_remote

# Text goes in as it is: what XTuner does where a config names no template.
NO_TEMPLATE = {"name": "none", "system": "{system}\n", "instruction": "{input}"}


def read_tokenizer(value: Any, where: str, report: ConversionReport) -> None:
    """A tokenizer's settings; every tokenizer of a config must be the same."""
    values = report.values
    node = ConfigNode(value, where, report)
    node.read_type("AutoTokenizer.from_pretrained", "LlamaTokenizer.from_pretrained")
    name = node.take("pretrained_model_name_or_path", "")
    eos = node.take("eos_token") or ""
    # Rows are packed, markup is encoded as it stands, and no remote code is run.
    node.ignore("padding_side", "trust_remote_code", "encode_special_tokens", "use_fast")
    node.refuse_rest()
    if name == values.get("pretrained_model_name_or_path"):
        name = ""
    first = (values.setdefault("tokenizer_name_or_path", name), values.setdefault("eos_token", eos))
    if first != (name, eos):
        report.refuse(f"{where} is another tokenizer than the config's others")


def read_template_map(value: Any, where: str, report: ConversionReport) -> Any:
    """The template of a `template_map_fn`."""
    node = ConfigNode(value, f"{where}.template_map_fn", report)
    node.read_type("template_map_fn_factory", "template_map_fn")
    template = parse_template(node.take("template"), node.where, report)
    node.refuse_rest()
    return template


def parse_template(value: Any, where: str, report: ConversionReport) -> Any:
    """A template's name, or its fields where the config writes them out; None for none."""
    if value is None:
        return None
    chosen: Any = get_template_name(value) or value
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


SourceDict = dict[str, Any]


def read_load_dataset(
    dataset: Any, where: str, split: str | None, report: ConversionReport
) -> SourceDict:
    """The source that `load_dataset(…)` or a hub's own loader means."""
    node = ConfigNode(dataset, where, report)
    kind = node.read_type("load_dataset", "MsDataset.load", "OmDataset.load_dataset")
    path = node.take("path") or node.take("dataset_name")
    namespace = node.take("namespace")
    path = f"{namespace}/{path}" if namespace else path
    split = node.take("split", split)
    files, folder = node.take("data_files"), node.take("data_dir")
    subset = node.take("name") or node.take("subset_name")
    node.ignore("ignore_verifications", "num_proc", "trust_remote_code", "cache_dir", "token",
                "use_auth_token", "keep_in_memory", "verification_mode")  # fmt: skip
    if node.take("streaming"):
        report.change("streaming", "streaming: the dataset is read whole before the run")
    node.refuse_rest()
    if isinstance(files, Mapping):
        files = (
            files.get(split) if split else [f for some in files.values() for f in _as_list(some)]
        )
        if files is None:
            report.refuse(f"{where}.data_files has no split {split!r}")
    if path in ("json", "csv", "parquet"):
        chosen = _as_list(files)
        require_files(chosen, report)
        return {"path": chosen if len(chosen) != 1 else chosen[0]}
    source: SourceDict = {"path": path or ""}
    if not path:
        report.refuse(f"{where} names no path")
    if split and split != "all":
        source["split"] = split
    if subset:
        source["subset"] = subset
    if files or folder:
        source["files"] = [*_as_list(files)] or [f"{folder.strip('/')}/*"]
    _set_hub(str(path), kind, source, report)
    return source


def read_load_jsonl(dataset: Any, where: str, report: ConversionReport) -> SourceDict:
    """The source that XTuner's `load_jsonl_dataset` means: files of JSON lines, or a folder of them."""
    node = ConfigNode(dataset, where, report)
    node.read_type("load_jsonl_dataset")
    files, folder, ending = (node.take(key) for key in ("data_files", "data_dir", "suffix"))
    node.refuse_rest()
    if bool(files) == bool(folder):
        report.refuse(f"{where} must name either data_files or data_dir")
        return {"path": ""}
    if folder:
        require_files([folder], report)
        return {"path": folder} | ({"files": [f"*{ending}"]} if ending else {})
    chosen = _as_list(files)
    require_files(chosen, report)
    return {"path": chosen if len(chosen) != 1 else chosen[0]}


def _set_hub(path: str, kind: str, source: SourceDict, report: ConversionReport) -> None:
    if kind == "MsDataset.load":
        source["hub"] = "modelscope"
    elif kind == "OmDataset.load_dataset":
        source["hub"] = "openmind"
    if is_remote(path):
        hub = {"modelscope": "ModelScope", "openmind": "openMind"}.get(
            source.get("hub", ""), "the Hugging Face Hub"
        )
        report.need(f"the dataset {path} of {hub}")
    elif not Path(path).exists():
        report.need(f"the dataset {path}, which is not there")


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def require_files(files: list[str], report: ConversionReport) -> None:
    """Name the files that are not there."""
    if not files:
        report.refuse("a dataset of files names none")
    for file in files:
        if not Path(file).expanduser().exists():
            report.need(f"the dataset {file}, which is not there")
