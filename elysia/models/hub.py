"""Finding a model folder: on this machine, on the Hugging Face Hub or on ModelScope."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from elysia.core.errors import ModelError, nearest

HUBS = ("huggingface", "modelscope")
# What a causal language model needs. Pickled weights and those of other frameworks are not fetched.
DOWNLOAD_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "*.md"]
HUB_TIMEOUT = 20.0  # seconds to wait for a hub's first answer
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve_model(
    name_or_path: str | Path, hub: str = "huggingface", *, weights: bool = True
) -> Path:
    """The local folder of a model or adapter, downloaded from `hub` when it is not on this machine.

    Args:
        name_or_path: an existing folder, or a hub's `owner/name`.
        hub: "huggingface" or "modelscope".
        weights: False asks the hub for the configuration and the tokenizer alone; weights that are
            on this machine already are in the folder even so.

    Raises ModelError when it is in neither place or the hub cannot be reached.
    """
    if hub not in HUBS:
        raise ModelError("models.unknown_hub", hub=hub, hint=nearest(hub, HUBS), hubs=HUBS)
    text = str(name_or_path)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError("models.file_not_folder", path=text)
    if not _REPO_ID.fullmatch(text) or text.startswith("."):
        raise ModelError("models.no_model_folder", path=text)
    patterns = [p for p in DOWNLOAD_PATTERNS if weights or p != "*.safetensors"]
    if hub == "modelscope":
        return _fetch_from_modelscope(text, {} if weights else {"allow_patterns": patterns})
    return _fetch_from_huggingface(text, patterns)


def _fetch_from_huggingface(name: str, patterns: list[str]) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    hub = "Hugging Face"
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    try:
        local = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        # A plan or a look at the data may have left a folder without weights.
        if offline or "*.safetensors" not in patterns or any(local.glob("*.safetensors")):
            return local
    except Exception:  # the cache lacks it; the client has many exceptions for that
        if offline:
            reason = "HF_HUB_OFFLINE is set"
            raise ModelError("models.not_fetched", name=name, hub=hub, reason=reason) from None
    try:
        # Asked with a time limit, which snapshot_download does not have: a silent network hangs it.
        commit = HfApi().model_info(name, timeout=HUB_TIMEOUT).sha
        return Path(snapshot_download(name, revision=commit, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError("models.licence_not_accepted", name=name) from error
    except RepositoryNotFoundError as error:
        raise ModelError("models.not_on_hub", name=name) from error
    # Whatever else the client, the network or the disk raises means that the model is not here.
    except Exception as error:
        reason = _get_reason(error)
        raise ModelError("models.not_fetched", name=name, hub=hub, reason=reason) from error


def _fetch_from_modelscope(name: str, options: dict[str, list[str]]) -> Path:
    try:
        modelscope = importlib.import_module("modelscope")
    except ImportError as error:
        raise ModelError("models.modelscope_missing", name=name) from error
    try:
        return Path(modelscope.snapshot_download(name, **options))
    except Exception as error:
        reason = _get_reason(error)
        raise ModelError(
            "models.not_fetched", name=name, hub="ModelScope", reason=reason
        ) from error


def _get_reason(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), "")[:160] or type(error).__name__
