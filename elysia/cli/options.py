"""Flags that several verbs share: settings over a config, the model and its engine, the hub."""

from __future__ import annotations

import ast
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysia.core.errors import UsageError, nearest

if TYPE_CHECKING:
    from elysia.app import ModelConfig
    from elysia.engines.base import Sampling

CFG_OPTIONS_HELP = (
    "settings over those of the config: key=value, nested as a.b=value; values are Python literals "
    "(3e-4, None, [a,b]), else text; a,b without spaces is a list; quote twice to keep text: "
    "\"SYSTEM='a,b'\""
)
DTYPES = {"auto": "auto", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
ENGINES = ["llama_cpp", "transformers", "openai"]
HUBS = ["huggingface", "modelscope"]


def add_cfg_options(parser: ArgumentParser) -> None:
    """The flag --cfg-options, which may be given more than once."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="K=V",
        help=CFG_OPTIONS_HELP,
    )


def add_hub(parser: ArgumentParser, help: str = "where names lead") -> None:
    """The flag --hub."""
    parser.add_argument("--hub", choices=HUBS, default=None, help=help)


def add_thinking(parser: ArgumentParser) -> None:
    """The flags --thinking and --no-thinking."""
    parser.add_argument(
        "--thinking",
        action=BooleanOptionalAction,
        default=None,
        help="whether the model thinks before it replies, where its template can be asked (default: as "
        "the run card says, else no)",
    )


def add_model_options(parser: ArgumentParser) -> None:
    """The flags about what is loaded and how it is prompted; `build_model_config` reads them."""
    add = parser.add_argument
    add("--adapter", metavar="DIR", help="an adapter folder to put on the model")
    add("--torch-dtype", choices=DTYPES, default="auto", help="default: what the device does best")
    add("--bits", type=int, choices=[4, 8], help="load quantized: NF4 or int8")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--hub", choices=HUBS, default="huggingface", help="where names lead")
    add("--prompt-template", metavar="NAME", help="default: the run card's, else the model's own")
    add_thinking(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--system", metavar="TEXT", help="default: the run card's")
    group.add_argument("--system-template", metavar="NAME", help="one of XTuner's system prompts")


def add_engine_options(parser: ArgumentParser) -> None:
    """The flags about what runs the model."""
    add = parser.add_argument
    add("--engine", choices=ENGINES, help="default: what suits MODEL and the device")
    add("--threads", type=int, metavar="N", help="of llama_cpp (default: one fewer than the cores)")
    add(
        "--context", type=int, metavar="N", help="tokens of prompt and reply (default: the model's)"
    )
    add("--gpu-layers", type=int, default=0, metavar="N", help="of llama_cpp (default: 0)")
    add("--remote-model", metavar="NAME", help="which of a URL's models (default: its first)")


def build_model_config(
    args: Namespace, sampling: Sampling, stop: tuple[str, ...] = ()
) -> ModelConfig:
    """The flags of `add_model_options`, and of `add_engine_options` where the verb has them."""
    from elysia.app import ModelConfig

    return ModelConfig(
        model=args.model_name_or_path,
        adapter=args.adapter,
        hub=args.hub,
        dtype=DTYPES[args.torch_dtype],
        bits=args.bits,
        device=args.device,
        prompt_template=args.prompt_template,
        thinking=args.thinking,
        system=get_system_text(args),
        stop_words=stop,
        sampling=sampling,
        engine=getattr(args, "engine", None),
        threads=getattr(args, "threads", None),
        context=getattr(args, "context", None),
        slots=getattr(args, "parallel", 1),
        gpu_layers=getattr(args, "gpu_layers", 0),
        remote_model=getattr(args, "remote_model", None),
    )


def get_system_text(args: Namespace) -> str | None:
    """The text of --system or --system-template; None when neither was given."""
    if args.system_template is None:
        return str(args.system) if args.system is not None else None
    from elysia.core.templates import SYSTEM_TEMPLATES

    name = args.system_template
    if name not in SYSTEM_TEMPLATES:
        hint = nearest(name, SYSTEM_TEMPLATES)
        raise UsageError(
            "cli.no_system_template", name=name, known=list(SYSTEM_TEMPLATES), hint=hint
        )
    text = SYSTEM_TEMPLATES[name]
    return text.replace("{bot_name}", getattr(args, "bot_name", "BOT")).replace("{round}", "1")


def resolve_hub(args: Namespace, adapter: Path) -> str:
    """--hub, else the hub that the adapter's base was trained from, else Hugging Face."""
    from elysia.core.run_card import RunCard

    card = RunCard.read(adapter)
    trained = card.extra.get("training", {}).get("hub") if card else None
    return args.hub or trained or "huggingface"


def require_at_least(args: Namespace, minimum: float, *flags: str) -> None:
    """UsageError for the first of `flags` ("--max-tokens") whose value is below `minimum`.

    A verb that lacks a flag, or a flag without a value, passes.
    """
    for flag in flags:
        value = getattr(args, flag.lstrip("-").replace("-", "_"), None)
        if value is not None and value < minimum:
            raise UsageError("cli.flag_too_small", flag=flag, value=value, minimum=minimum)


def parse_cfg_options(pairs: Iterable[str]) -> dict[str, Any]:
    """`["lr=1e-4", "a.b=[x,y]"]` as a flat dict with dotted keys. Raises UsageError.

    >>> parse_cfg_options(["lr=1e-4", "name=tiny", "a.b=[x,2]", "betas=0.9,0.99", "on=true"])
    {'lr': 0.0001, 'name': 'tiny', 'a.b': ['x', 2], 'betas': (0.9, 0.99), 'on': True}
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise UsageError("cli.option_not_key_value", option=pair)
        options[key.strip()] = parse_value(value)
    return options


def parse_value(text: str) -> Any:
    """One value: a Python literal where it is one, else a list of words, else the text itself."""
    constants = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    # Lists of words without quotes, as MMEngine's own --cfg-options reads them: [a,b], (a,b) and a,b.
    inner = text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text
    bracketed = inner is not text
    if not any(mark in inner for mark in "[](){}"):
        if bracketed:
            items = [parse_value(item.strip()) for item in inner.split(",") if item.strip()]
            return items if text[0] == "[" else tuple(items)
        if "," in inner and not any(c.isspace() for c in inner) and "://" not in inner:
            return [parse_value(item) for item in inner.split(",") if item]
    return text
