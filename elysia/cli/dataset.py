"""`elysia list-dataset-format`, `log-dataset` and `check-custom-dataset`: the data as training sees it.

They build the training's own dataset, from rows and the tokenizer; no weights are loaded.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.cli.options import add_cfg_options, parse_cfg_options, require_at_least
from elysia.cli.output import build_parser, paint, say
from elysia.core.paths import resolve_all_bundled

if TYPE_CHECKING:
    from elysia.train.config.settings import Settings
    from elysia.train.data.dataset import PackedDataset

IGNORE = -100


def list_dataset_format_parser() -> ArgumentParser:
    """The parser of `elysia list-dataset-format`."""
    about = "List the names that dataset_format takes."
    return build_parser("list-dataset-format", "", about, list_dataset_format)


def list_dataset_format(args: Namespace) -> int:
    """Print the names, a line each."""
    from elysia.data.formats.preference_pairs import PREFERENCES
    from elysia.data.formats.pretokenized import PRETOKENIZED
    from elysia.data.formats.registry import FORMATS

    for name in (*FORMATS, *PRETOKENIZED, *PREFERENCES):
        say(name)
    return 0


def log_dataset_parser() -> ArgumentParser:
    """The parser of `elysia log-dataset`."""
    parser = build_parser(
        "log-dataset",
        "CONFIG [--show {text,masked_text,input_ids,labels,all}] [-n COUNT]",
        "Show the first samples as training sees them; learned text is green.",
        log_dataset,
    )
    parser.add_argument("config", help="a config file, or the name of a bundled one")
    parser.add_argument(
        "--show",
        choices=["text", "masked_text", "input_ids", "labels", "all"],
        default="text",
        help="masked_text has [-100 x N] where N tokens are not learned (default: text)",
    )
    parser.add_argument("-n", "--count", type=int, default=1, help="samples to show (default: 1)")
    add_cfg_options(parser)
    return parser


def log_dataset(args: Namespace) -> int:
    """Print the first samples in the forms that --show names."""
    require_at_least(args, 1, "--count")
    dataset = build_dataset(load_config(args), "train")
    ways = ["text", "masked_text", "input_ids", "labels"] if args.show == "all" else [args.show]
    for index in range(min(args.count, len(dataset.tokens))):
        ids, labels = (part.tolist() for part in dataset.tokens[index])
        file, row = dataset.tokens.get_origin(index)
        say(paint(f"{file}, row {row}: {len(ids)} tokens", "dim"))
        for way in ways:
            if len(ways) > 1:
                say(paint(f"--- {way}", "bold"))
            say(format_sample(ids, labels, dataset.tokenizer, way))
    return 0


def format_sample(ids: list[int], labels: list[int], tokenizer: Any, way: str) -> str:
    """One sample in the form `way`, a value of --show."""
    if way in ("input_ids", "labels"):
        return str(ids if way == "input_ids" else labels)
    runs = list(find_learned_runs(ids, labels, tokenizer))
    if way == "text":
        return "".join(paint(text, "green") if learned else text for learned, text, _ in runs)
    return "".join(text if learned else f"[-100 x {count}]" for learned, text, count in runs)


def find_learned_runs(
    ids: list[int], labels: list[int], tokenizer: Any
) -> list[tuple[bool, str, int]]:
    """The sample as runs of tokens that are all learned or all not: (learned, text, number of tokens)."""
    runs, start, before = [], 0, ""
    for learned, group in groupby(labels, key=lambda label: label != IGNORE):
        count = len(list(group))
        start += count
        # Decoded from the beginning each time, because a run decoded alone may lose its leading space.
        text = str(tokenizer.decode(ids[:start]))
        runs.append((learned, text[len(before) :], count))
        before = text
    return runs


def check_custom_dataset_parser() -> ArgumentParser:
    """The parser of `elysia check-custom-dataset`."""
    parser = build_parser(
        "check-custom-dataset",
        "CONFIG [--cfg-options K=V ...]",
        "Read every row of a config's data as training would, and report; the model is not loaded.",
        check_custom_dataset,
    )
    parser.add_argument("config", help="a config file, or the name of a bundled one")
    add_cfg_options(parser)
    return parser


def check_custom_dataset(args: Namespace) -> int:
    """Print the report. A row that cannot be trained on is an error that names it."""
    settings = load_config(args)
    train = build_dataset(settings, "train")
    from elysia.data.sources import find_files

    for source in settings.sources:
        located = source | {"path": resolve_all_bundled(source["path"])}
        files = {file.resolve() for file in find_files(located)}
        origins = {(file, row) for file, row in train.tokens.origin}
        rows = sum(Path(file).resolve() in files for file, _ in origins)
        times = f", {source['repeat']} times" if source["repeat"] != 1 else ""
        say(f"{source['path']} ({source['format']}): {rows} rows to train on{times}")
    show_report(train, settings)
    if settings.heldout:
        heldout = build_dataset(settings, "heldout")
        say(f"held out       {len(heldout.tokens)} samples, {heldout.tokens.lengths.sum()} tokens")
    say("The data can be trained on.")
    return 0


def show_report(dataset: PackedDataset, settings: Settings) -> None:
    """Print counts, lengths in tokens, the share that is learned, and the packing."""
    tokens = dataset.tokens
    lengths = tokens.lengths
    ranked = sorted(int(n) for n in lengths)
    file, row = tokens.get_origin(int(lengths.argmax()))
    total = int(lengths.sum())
    say(
        f"samples        {len(tokens)}" + (f" ({tokens.dropped} dropped)" if tokens.dropped else "")
    )
    if tokens.cut:
        say(f"shortened      {tokens.cut} (overlong = 'cut': their last turns are left out)")
    say(f"tokens         {total}, {100 * tokens.labelled.sum() / total:.1f} % of them learned")
    say(f"length         {ranked[0]} to {ranked[-1]} tokens, median {ranked[len(ranked) // 2]}")
    say(f"longest        {file}, row {row}")
    filled = 100 * total / (len(dataset) * settings.max_length)
    say(f"packs          {len(dataset)} of {settings.max_length} tokens, {filled:.1f} % full")


def load_config(args: Namespace) -> Settings:
    """The settings of CONFIG and --cfg-options."""
    options = parse_cfg_options(args.cfg_options)
    from elysia.train.config.settings import load_settings

    return load_settings(args.config, options)


def build_dataset(settings: Settings, split: str) -> PackedDataset:
    """The dataset that the training would use for `split`: "train" or "heldout"."""
    from elysia.train.config.builder import build_dataset_config
    from elysia.train.data.dataset import PackedDataset

    base = settings.pretrained_model_name_or_path
    return PackedDataset(**build_dataset_config(settings, base), split=split)
