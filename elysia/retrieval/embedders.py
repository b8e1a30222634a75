"""Texts as vectors whose angle says how near their meanings are.

Any encoder in Hugging Face's form, from a local folder or a hub, pooled as its own
sentence-transformers files say. torch is imported when one is opened. Knows nothing of indexes.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from elysia.core.errors import ModelError

log = logging.getLogger(__name__)

BATCH_SIZE = 32
MAX_TOKENS = 512  # tokens of a text that count
# What an encoder needs; pickled weights stay where they are.
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


class Embedder(Protocol):
    """Whatever makes vectors of one length, 1 by its norm. May be called from several threads."""

    @property
    def name(self) -> str:
        """What was opened; vectors of two names are never compared."""

    @property
    def dimensions(self) -> int:
        """The length of a vector."""

    def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        """A vector a text. `question` where the model wants questions marked as such."""


def open_embedder(name: str | None, hub: str = "huggingface") -> Embedder | None:
    """The encoder in a local folder or at a hub ("huggingface", "modelscope"); None without a name.

    ModelError, a sentence, when it is not there or is no encoder.
    """
    if not name:
        _log_no_model_once()
        return None
    folder = Path(name).expanduser()
    if not folder.is_dir() and name.startswith(("/", ".", "~")):
        raise ModelError(f"There is no folder {name}. Name a local folder, or a hub's owner/name.")
    return TransformerEmbedder(folder if folder.is_dir() else _download(name, hub), name)


class TransformerEmbedder:
    """A transformer whose last layer is pooled into one vector."""

    def __init__(self, folder: Path, name: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{folder} holds no embedding model that can be opened "
                f"({str(error).splitlines()[0]}); it needs config.json, a tokenizer and "
                "model.safetensors."
            ) from error
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)
        self._pooling = _load_pooling(folder)
        self._prompts = _load_prompts(folder)
        self._longest = min(MAX_TOKENS, self._tokenizer.model_max_length)
        self._lock = threading.Lock()  # of the tokenizer, which is not for two threads at once
        self._name = name
        self._dimensions = int(model.config.hidden_size)

    @property
    def name(self) -> str:
        """The folder or hub name it was opened by."""
        return self._name

    @property
    def dimensions(self) -> int:
        """The model's hidden size."""
        return self._dimensions

    def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        """A vector a text, in batches of similar length."""
        prompt = self._prompts["question" if question else "text"]
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors: list[list[float]] = [[] for _ in texts]
        for start in range(0, len(order), BATCH_SIZE):
            places = order[start : start + BATCH_SIZE]
            for place, vector in zip(
                places, self._batch([prompt + texts[place] for place in places]), strict=True
            ):
                vectors[place] = vector
        return vectors

    def _batch(self, texts: list[str]) -> list[list[float]]:
        import torch

        with self._lock, torch.inference_mode():
            tokens = self._tokenizer(
                texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            ).to(self._device)
            states = self._model(**tokens).last_hidden_state.float()
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            if self._pooling == "first":
                pooled = states[:, 0]
            else:
                pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            found: list[list[float]] = torch.nn.functional.normalize(pooled, dim=-1).tolist()
            return found


def _load_pooling(folder: Path) -> str:
    """ "first" or "mean", by sentence-transformers' file; mean where there is none."""
    said = _load_json(folder / "1_Pooling" / "config.json")
    return "first" if said.get("pooling_mode_cls_token") else "mean"


def _load_prompts(folder: Path) -> dict[str, str]:
    said = _load_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    text = said.get("document") or said.get("passage") or ""
    return {"question": str(said.get("query") or ""), "text": str(text)}


def _load_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is no JSON ({error}); fetch the model again.") from error
    return said if isinstance(said, dict) else {}


def _download(name: str, hub: str) -> Path:
    try:
        if hub == "modelscope":
            from modelscope import snapshot_download as fetch

            return Path(fetch(name, allow_patterns=MODEL_FILES))
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=MODEL_FILES))
    except ImportError as error:
        raise ModelError(
            f"ModelScope's client is not installed here; pip install modelscope, or download {name} "
            "and name its folder."
        ) from error
    except Exception as error:
        raise ModelError(
            f"The embedding model {name} is no folder here and was not fetched from {hub} "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            "Name a local folder, or search by words alone."
        ) from error


@cache
def _log_no_model_once() -> None:
    log.info("No embedding model is set: texts are found by their words alone.")
