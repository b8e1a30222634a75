"""The data of a config of XTuner's: datasets become sources, samplers and templates become settings.

No data file is opened; what must be downloaded first, or is not there, is named as a need.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

from elysia.compat.xtuner.report import ConfigNode, ConversionReport, shorten_repr
from elysia.compat.xtuner.shared_nodes import (
    SourceDict,
    read_load_dataset,
    read_template_map,
    read_tokenizer,
    require_files,
)
from elysia.compat.xtuner.symbols import MAP_FUNCTIONS, short_name


class DatasetCollector:
    """What the datasets of one config agree on, and their sources."""

    def __init__(self) -> None:
        self.sources: list[SourceDict] = []
        self.templates: list[Any] = []
        self.lengths: list[int] = []
        self.packed: list[bool] = []
        self.isolated: list[bool] = []
        self.cuts: list[bool] = []  # whole turns are cut, where others are truncated


def read_train_data(tree: Mapping[str, Any], path: Path, report: ConversionReport) -> list[Any]:
    """train_dataloader's settings; returns the prompt templates in use, at most one."""
    values = report.values
    loader = ConfigNode(tree["train_dataloader"], "train_dataloader", report)
    datasets = DatasetCollector()
    _read_dataset(loader.take("dataset"), "train_dataloader.dataset", path, datasets, report)
    read_dataloader(loader, "default_collate_fn", report)
    values["data_path"] = datasets.sources
    formats = {source["format"] for source in datasets.sources}
    if len(formats) == 1:  # so that --cfg-options data_path=… is read as the config's own was
        values["dataset_format"] = formats.pop()
    values["SYSTEM"] = ""  # XTuner's rows have the system text that their map function gives them
    _set_common_values(datasets, report)
    return datasets.templates[:1]


def read_dataloader(loader: ConfigNode, collate: str, report: ConversionReport) -> None:
    """A dataloader's settings beside its dataset: the order of rows, and how many at a time.
    `collate`: the only collate function that is accepted."""
    values = report.values
    _read_sampler(loader, report)
    values["batch_size"] = loader.take("batch_size", 1)
    values["dataloader_num_workers"] = loader.take("num_workers", 0)
    loader.ignore("pin_memory", "persistent_workers", "prefetch_factor")
    function = loader.take("collate_fn")
    if function is not None:
        node = ConfigNode(function, "train_dataloader.collate_fn", report)
        node.read_type(collate)
        node.ignore("use_varlen_attn", "pad_index", "return_hf_format")
        node.refuse_rest()
    loader.refuse_rest()


def _set_common_values(datasets: DatasetCollector, report: ConversionReport) -> None:
    values = report.values
    for name, several in (("max_length", datasets.lengths), ("pack_to_max_length", datasets.packed),
                          ("prompt templates", datasets.templates)):  # fmt: skip
        if any(value != several[0] for value in several):
            report.refuse(f"its datasets differ in {name}, and a run has one")
    if datasets.lengths:
        values["max_length"] = datasets.lengths[0]
    pack = bool(datasets.packed and datasets.packed[0])
    values["pack_to_max_length"] = pack
    values["overlong"] = "cut" if all(datasets.cuts) else "truncate"
    if any(datasets.cuts) and not all(datasets.cuts):
        report.change("moss-length", "MOSS's rows that are too long lose their last tokens, not "
                      "their last turns")  # fmt: skip
    if pack:
        isolation = "" if all(datasets.isolated) else " and no longer see each other"
        report.change("packing", f"packed rows are whole{isolation}: XTuner joins them and cuts every "
                      "max_length tokens")  # fmt: skip


def _read_dataset(
    dataset: Any, where: str, path: Path, datasets: DatasetCollector, report: ConversionReport
) -> None:
    node = ConfigNode(dataset, where, report)
    kind = node.read_type("process_hf_dataset", "process_ms_dataset", "ConcatDataset",
                     "MOSSSFTDataset", "build_packed_dataset")  # fmt: skip
    if kind == "ConcatDataset":
        for dataset, inside, weight in split_concat_dataset(node, report):
            first = len(datasets.sources)
            _read_dataset(dataset, inside, path, datasets, report)
            apply_weight(datasets.sources[first:], weight)
    elif kind == "MOSSSFTDataset":
        _read_moss(node, datasets, report)
    elif kind == "build_packed_dataset":
        _read_intern_repo(node, datasets, report)
    elif kind:
        _read_processed(node, path, datasets, report)
    node.refuse_rest()


def split_concat_dataset(
    node: ConfigNode, report: ConversionReport
) -> list[tuple[Any, str, float]]:
    """The datasets of a ConcatDataset: each with its place in the config and its weight."""
    several = node.take("datasets") or []
    weights = node.take("weights") or [1] * len(several)
    if len(weights) != len(several):
        report.refuse(f"{node.where} has {len(several)} datasets and {len(weights)} weights")
        return []
    places = [f"{node.where}.datasets[{number}]" for number in range(len(several))]
    return list(zip(several, places, weights, strict=True))


def apply_weight(sources: list[SourceDict], weight: float) -> None:
    """Let `sources` be seen `weight` times as often."""
    for source in sources:
        source.update({"repeat": weight * source.get("repeat", 1)} if weight != 1 else {})


def _read_processed(
    node: ConfigNode, path: Path, datasets: DatasetCollector, report: ConversionReport
) -> None:
    """process_hf_dataset and process_ms_dataset."""
    source = read_load_dataset(
        node.take("dataset"), f"{node.where}.dataset", node.take("split", "train"), report
    )
    template = node.take("template_map_fn")
    if template is not None:
        datasets.templates.append(read_template_map(template, node.where, report))
    source["format"] = _read_format(node, path, report)
    if source["format"] == "pretrain":
        report.change("documents", "documents longer than max_length are divided and learned whole: "
                      "XTuner drops what is past it")  # fmt: skip
    limit = node.take("max_dataset_length")
    if limit:
        source["limit"] = limit
    renamed = node.take("rename_maps")
    if renamed:
        source["columns"] = dict(renamed)
    if not node.take("input_ids_with_output", True):
        report.refuse(f"{node.where}.input_ids_with_output = False: replies are what is learned")
    if node.take("with_image_token"):
        report.refuse(f"{node.where}.with_image_token: images are not trained on")
    if not node.take("shuffle_before_pack", True) and node.values.get("pack_to_max_length", True):
        report.change("shuffle-before-pack", "shuffle_before_pack = False: which rows share a pack is "
                      "drawn by the seed")  # fmt: skip
    node.ignore("remove_unused_columns", "map_num_proc")
    length = node.take("max_length")
    if length:
        datasets.lengths.append(length)
    datasets.packed.append(bool(node.take("pack_to_max_length", True)))
    datasets.isolated.append(bool(node.take("use_varlen_attn", False)))
    datasets.cuts.append(False)
    tokenizer = node.take("tokenizer")
    if tokenizer is not None or source["format"] != "tokens":
        read_tokenizer(tokenizer, f"{node.where}.tokenizer", report)
    datasets.sources.append(source)


def _read_format(node: ConfigNode, path: Path, report: ConversionReport) -> str:
    """The dataset format of a map function, `FILE.py:NAME` for one of the user's own."""
    function = node.take("dataset_map_fn")
    if not node.take("do_dataset_tokenization", True):
        return "tokens"
    if function is None:
        return "xtuner"
    if isinstance(function, FunctionType):
        return get_function_format(function, node.where, path, report)
    name = MAP_FUNCTIONS.get(short_name(function))
    if name is None:
        report.refuse(
            f"{node.where}.dataset_map_fn is {shorten_repr(function)}, which is not read here"
        )
        return "xtuner"
    if name in ("llava", "llava_image_only"):
        report.refuse(f"{node.where}.dataset_map_fn: images are not trained on")
    return name


def get_function_format(
    function: FunctionType, where: str, path: Path, report: ConversionReport
) -> str:
    """The name by which a map function of the user's own is a dataset format, `FILE.py:NAME`."""
    file = function.__code__.co_filename
    if not function.__name__.isidentifier():
        report.refuse(f"{where}.dataset_map_fn is a lambda: give it a name with def")
    return f"{Path(file).resolve() if Path(file).is_file() else path.resolve()}:{function.__name__}"


def _read_moss(node: ConfigNode, datasets: DatasetCollector, report: ConversionReport) -> None:
    file = node.take("data_file")
    require_files([file], report)
    source: SourceDict = {"path": file, "format": "moss_sft"}
    name = node.take("bot_name")
    if name:
        source["bot_name"] = name
    datasets.sources.append(source)
    datasets.lengths.append(node.take("max_length", 2048))
    datasets.packed.append(False)
    datasets.isolated.append(True)
    datasets.cuts.append(True)
    read_tokenizer(node.take("tokenizer"), f"{node.where}.tokenizer", report)


def _read_intern_repo(
    node: ConfigNode, datasets: DatasetCollector, report: ConversionReport
) -> None:
    """build_packed_dataset over a folder of InternLM's own trainer."""
    rows = ConfigNode(node.take("dataset_cfg"), f"{node.where}.dataset_cfg", report)
    kind = rows.read_type(
        "load_intern_repo_tokenized_dataset", "load_intern_repo_untokenized_dataset"
    )
    tokenized = kind == "load_intern_repo_tokenized_dataset"
    folder = rows.take("folder") or ""
    ending = rows.take("file_type", ".bin" if tokenized else ".json")
    source: SourceDict = {"path": folder, "format": "tokens" if tokenized else "openai_lines"}
    source["files"] = [f"*{ending}"]
    if rows.take("processed_dataset_dict_path"):
        report.refuse(f"{rows.where}.processed_dataset_dict_path: Arrow folders are not read")
    order = rows.take("data_order_path")
    if order and Path(order).is_file():
        names = Path(order).read_text(encoding="utf-8").splitlines()
        source["path"] = [str(Path(folder, name)) for name in names if name.strip()]
    elif order:
        report.refuse(f"{rows.where}.data_order_path: there is no file {order}")
    require_files([folder], report)
    min_length = rows.take("min_length", 0)
    if min_length:
        source["min_length"] = min_length
    template = rows.take("template_map_fn")
    if template is not None:
        datasets.templates.append(read_template_map(template, rows.where, report))
    if "tokenizer" in rows.values:
        read_tokenizer(rows.take("tokenizer"), f"{rows.where}.tokenizer", report)
    datasets.lengths.append(node.take("packed_length", 8192))
    rows.ignore("max_length")  # a row is truncated at the pack's length at the latest
    rows.refuse_rest()
    node.ignore("seed")
    report.change("order", "rows are packed and drawn by `seed`, not by InternRepo's 1024")
    datasets.sources.append(source)
    datasets.packed.append(True)
    datasets.isolated.append(True)
    datasets.cuts.append(False)


def _read_sampler(loader: ConfigNode, report: ConversionReport) -> None:
    report.values["sampler"] = "shuffled"
    sampler = loader.take("sampler")
    if sampler is not None:
        node = ConfigNode(sampler, "train_dataloader.sampler", report)
        kind = node.read_type("DefaultSampler", "LengthGroupedSampler", "InternRepoSampler",
                         "SequenceParallelSampler")  # fmt: skip
        if kind == "LengthGroupedSampler":
            report.values["sampler"] = "length_grouped"
            node.ignore("length_property", "per_device_batch_size", "mega_batch_mult")
        elif not node.take("shuffle", True):
            report.values["sampler"] = "sequential"
        if node.take("seed") is not None:
            report.change("order", "rows are packed and drawn by `seed`, not by the sampler's own")
        node.ignore("round_up")
        node.refuse_rest()
    batches = loader.take("batch_sampler")
    if batches is not None:
        node = ConfigNode(batches, "train_dataloader.batch_sampler", report)
        node.read_type("BatchSampler")
        loader.values["batch_size"] = node.take("batch_size", loader.values.get("batch_size", 1))
        if node.take("drop_last") and loader.values["batch_size"] > 1:
            report.change(
                "drop-last", "drop_last: an epoch's last, smaller batch is trained on, too"
            )
        node.refuse_rest()


def read_mmlu(tree: Mapping[str, Any], report: ConversionReport) -> None:
    """val_dataloader and val_evaluator, which may only score MMLU's questions."""
    for key in ("test_dataloader", "test_evaluator", "test_cfg"):
        if tree.get(key) is not None:
            report.change("test", f"{key}: `elysia test` is not served; questions are scored while "
                          "training")  # fmt: skip
    loader = tree.get("val_dataloader")
    if loader is None:
        if tree.get("val_evaluator") is not None:
            report.refuse("val_evaluator without a val_dataloader")
        return
    if short_name((tree.get("val_evaluator") or {}).get("type")) != "MMLUMetric":
        report.refuse("val_evaluator: only MMLUMetric is scored while training")
        return
    rows = ConfigNode(loader.get("dataset"), "val_dataloader.dataset", report)
    source = read_load_dataset(
        rows.take("dataset"), f"{rows.where}.dataset", rows.take("split", "val"), report
    )
    if not isinstance(source["path"], str):
        report.refuse("val_dataloader: MMLU's questions are one file")
        return
    report.values["mmlu_path"] = source["path"]
    interval = tree["train_cfg"].get("val_interval", 1)
    hooks = [
        h for h in tree.get("custom_hooks") or [] if short_name(h.get("type")) == "EvaluateChatHook"
    ]
    if hooks and interval != hooks[0].get("every_n_iters"):
        report.change("val-interval", "train_cfg.val_interval: MMLU is scored when evaluation chats are "
                      "held")  # fmt: skip
