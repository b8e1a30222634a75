"""Where trained weights come from: the run card of a fine-tune, and the versions of everything that shapes
weights.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import elysia
from elysia.core.errors import ConfigError, UsageError
from elysia.core.files import compute_sha256
from elysia.core.paths import resolve_bundled
from elysia.core.run_card import RunCard
from elysia.core.templates import ChatTemplate, get_stop_words, get_template
from elysia.models.chat_format import resolve_base_template
from elysia.models.fingerprint import compute_fingerprint
from elysia.models.loading import read_config
from elysia.train.config.settings import Settings
from elysia.train.config.validation import resolve_tokenizer

_PACKAGES = ("transformers", "peft", "bitsandbytes", "deepspeed", "mmengine-lite")


# Dataset formats whose rows take no template.
_WITHOUT_TALKS = ("pretrain", "tokens")


def build_run_card(settings: Settings, folder: str) -> RunCard:
    """What later stages must know of a run on the base model in `folder`. Metrics and row counts are added as
    they become known."""
    template = resolve_settings_template(settings, resolve_tokenizer(settings, folder))
    return RunCard(
        stage="train",
        base_model=settings.pretrained_model_name_or_path,
        base_weights=compute_fingerprint(Path(folder)),
        template=template.to_dict(),
        stop_words=list(get_stop_words(template)),
        system=settings.load_system_text(),
        persona=settings.persona,
        method=settings.method,
        datasets=_describe_datasets(settings),
        config_sha256=settings.sha256(),
        versions=collect_versions(),
        metrics={},
        extra={
            # What conversion must know and cannot see from the shapes of the weights.
            "training": {
                "dtype": settings.compute_dtype,
                "double_quant": settings.double_quant,
                "lora_r": settings.lora_r,
                "lora_alpha": settings.lora_alpha,
                "use_rslora": settings.use_rslora,
                "objective": settings.objective,
                "hub": settings.hub,
                "model_type": read_config(Path(folder))["model_type"],
            }
        },
    )


def resolve_settings_template(settings: Settings, tokenizer: str) -> ChatTemplate:
    """The prompt template of a run whose tokenizer is in the folder `tokenizer`.

    ConfigError where "auto" finds none; TemplateError for a template that cannot be used.
    """
    name = settings.pretrained_model_name_or_path
    try:
        return resolve_base_template(
            settings.prompt_template,
            Path(tokenizer),
            Path(name),
            name=name,
            thinking=settings.thinking,
        )
    except UsageError as error:
        if all(source["format"] in _WITHOUT_TALKS for source in settings.sources):
            return get_template("default")  # nothing is rendered with it
        raise ConfigError("train.no_prompt_template", model=name) from error


def _describe_datasets(settings: Settings) -> list[dict[str, str]]:
    """Path, format and hash of every dataset file that is on this machine."""
    files = [
        (path, source["format"])
        for source in settings.sources
        for path in ([source["path"]] if isinstance(source["path"], str) else source["path"])
    ]
    return [
        {"path": path, "format": name, "sha256": compute_sha256(Path(resolve_bundled(path)))}
        for path, name in files
        if Path(resolve_bundled(path)).is_file()
    ]


def collect_versions() -> dict[str, str]:
    """Package -> version, "absent" for what is not installed."""
    versions = {"elysia": elysia.__version__, "torch": torch.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return versions
