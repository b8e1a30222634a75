"""Where a model folder comes from: this machine, the Hugging Face Hub or ModelScope.

Knows nothing of what is in the folder.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from elysia.core.errors import ModelError, nearest

HUBS = ("huggingface", "modelscope")
# What a causal language model needs; pickled weights and other frameworks' stay where they are.
DOWNLOAD_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py", "*.md"]
HUB_TIMEOUT = 20.0  # seconds to wait for a hub's first answer
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve_model(name_or_path: str | Path, hub: str = "huggingface") -> Path:
    """The local folder of a model or adapter, fetched from `hub` when it is not on this machine.

    Args:
        name_or_path: an existing folder, or a hub's `owner/name`.
        hub: "huggingface" or "modelscope".

    Raises ModelError in one sentence when it is in neither place or the hub cannot be reached.
    """
    if hub not in HUBS:
        raise ModelError(f"Unknown hub '{hub}'.{nearest(hub, HUBS)} Use {' or '.join(HUBS)}.")
    text = str(name_or_path)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{text} is a file, and a model is a folder. Name the folder it lies in.")
    if not _REPO_ID.fullmatch(text) or text.startswith("."):
        raise ModelError(
            f"There is no model folder {text}. Check the path, or give a name such as "
            "internlm/internlm2-chat-1_8b."
        )
    return _fetch_from_modelscope(text) if hub == "modelscope" else _fetch_from_huggingface(text)


def _fetch_from_huggingface(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(
            snapshot_download(name, allow_patterns=DOWNLOAD_PATTERNS, local_files_only=True)
        )
    except Exception:
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise ModelError(_unreachable(name, "HF_HUB_OFFLINE is set")) from None
    try:
        # Asked with a time limit, which snapshot_download has not: a silent network hangs it.
        commit = HfApi().model_info(name, timeout=HUB_TIMEOUT).sha
        return Path(snapshot_download(name, revision=commit, allow_patterns=DOWNLOAD_PATTERNS))
    except GatedRepoError as error:
        raise ModelError(
            f"{name} on the Hugging Face Hub asks for a licence to be accepted: do so on its page, "
            "then `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no folder {name} here and no such model on the Hugging Face Hub. Check the "
            "spelling; a private one needs `hf auth login`."
        ) from error
    # Whatever else the client, the network or the disk raises means that the model is not here.
    except Exception as error:
        raise ModelError(_unreachable(name, _get_reason(error))) from error


def _fetch_from_modelscope(name: str) -> Path:
    try:
        modelscope = importlib.import_module("modelscope")
    except ImportError as error:
        raise ModelError(
            f"{name} is not on this machine, and to fetch it from ModelScope the package is "
            "missing: pip install modelscope."
        ) from error
    try:
        return Path(modelscope.snapshot_download(name))
    except Exception as error:
        raise ModelError(_unreachable(name, _get_reason(error), "ModelScope")) from error


def _unreachable(name: str, reason: str, hub: str = "the Hugging Face Hub") -> str:
    return (
        f"{name} is not on this machine and could not be fetched from {hub} ({reason}). "
        "Download it where there is a network and give the folder's path."
    )


def _get_reason(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), "")[:160] or type(error).__name__
