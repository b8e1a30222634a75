"""Embedding models: texts as vectors whose angle says how near their meanings are.

Any encoder in Hugging Face's form, from a local folder or a hub, pooled as its own
sentence-transformers files say. torch is imported when a model is opened.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from elysia.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

BATCH_SIZE = 32
MAX_TOKENS = 512  # tokens of a text that count
# What an encoder needs. Pickled weights are never fetched.
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


class Embedder(Protocol):
    """Anything that turns texts into vectors of one length and norm 1. Called from several threads."""

    @property
    def name(self) -> str:
        """The model's name; vectors of two names are never compared."""

    @property
    def dimensions(self) -> int:
        """The length of a vector."""

    def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        """A vector per text. `question`: for models that want questions marked as such."""


class PoolingMode(StrEnum):
    """How token states become one vector; the values are sentence-transformers' names."""

    FIRST = "cls"
    MEAN = "mean"
    MAX = "max"
    # Divides by the square root of the number of tokens; the same direction as the mean.
    MEAN_SQRT_LENGTH = "mean_sqrt_len"
    WEIGHTED_MEAN = "weightedmean"
    LAST = "lasttoken"


def open_embedder(name: str | None, hub: str = "huggingface") -> Embedder | None:
    """The encoder in a local folder or at a hub ("huggingface", "modelscope"); None without a name.

    ModelError when it does not exist, is no encoder, or pools in a way that is unknown here.
    """
    if not name:
        _log_no_model_once()
        return None
    folder = Path(name).expanduser()
    if not folder.is_dir() and name.startswith(("/", ".", "~")):
        raise ModelError("retrieval.no_embedder_folder", name=name)
    return TransformerEmbedder(folder if folder.is_dir() else _download(name, hub), name)


class TransformerEmbedder:
    """A transformer whose last layer is pooled into one vector.

    `name` is the folder or hub name it was opened by, `dimensions` the model's hidden size.
    """

    def __init__(self, folder: Path, name: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self._pooling = _load_pooling(folder)
        self._prompts = _load_prompts(folder)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            fault = str(error).splitlines()[0]
            raise ModelError("retrieval.no_embedding_model", folder=folder, fault=fault) from error
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)
        self._max_tokens = min(MAX_TOKENS, self._tokenizer.model_max_length)
        self._lock = threading.Lock()  # the tokenizer is not safe for two threads at once
        self.name = name
        self.dimensions = int(model.config.hidden_size)

    def embed(self, texts: Sequence[str], *, question: bool = False) -> list[list[float]]:
        """A vector of norm 1 per text, computed in batches of similar length."""
        prompt = self._prompts["question" if question else "text"]
        order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        vectors: list[list[float]] = [[] for _ in texts]
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            embedded = self._embed_batch([prompt + texts[n] for n in batch])
            for n, vector in zip(batch, embedded, strict=True):
                vectors[n] = vector
        return vectors

    def _embed_batch(self, texts: list[str]) -> list[list[float]]:
        import torch

        with self._lock, torch.inference_mode():
            tokens = self._tokenizer(
                texts, padding=True, truncation=True, max_length=self._max_tokens,
                return_tensors="pt",
            ).to(self._device)  # fmt: skip
            states = self._model(**tokens).last_hidden_state.float()
            pooled = pool(states, tokens["attention_mask"], self._pooling)
            vectors: list[list[float]] = torch.nn.functional.normalize(pooled, dim=-1).tolist()
            return vectors


def pool(states: Tensor, attention_mask: Tensor, mode: PoolingMode) -> Tensor:
    """Token states (texts, tokens, hidden) as one vector per text (texts, hidden), not normalized.

    `attention_mask` (texts, tokens) is 1 for tokens and 0 for padding, which may be on either side.
    As in sentence-transformers' `Pooling`.
    """
    import torch

    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    rows = torch.arange(states.shape[0], device=states.device)
    if mode is PoolingMode.FIRST:
        return states[rows, attention_mask.argmax(dim=1)]
    if mode is PoolingMode.LAST:
        last = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(dim=1)
        return states[rows, last]
    if mode is PoolingMode.MAX:
        return states.masked_fill(mask == 0, -torch.inf).amax(dim=1)
    if mode is PoolingMode.WEIGHTED_MEAN:  # later tokens count more (Muennighoff 2022, SGPT)
        mask = mask * attention_mask.cumsum(dim=1).unsqueeze(-1).to(states.dtype)
    length = mask.sum(dim=1).clamp(min=1)
    return (states * mask).sum(dim=1) / (
        length.sqrt() if mode is PoolingMode.MEAN_SQRT_LENGTH else length
    )


def _load_pooling(folder: Path) -> PoolingMode:
    """The pooling that the model's sentence-transformers file names; the mean where there is none.

    ModelError for one that is unknown here, and for several at once (they would be concatenated).
    """
    path = folder / "1_Pooling" / "config.json"
    config = _load_json(path)
    # A file has a flag per mode, such as `pooling_mode_cls_token`, or one key `pooling_mode`.
    flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    names = [key.removeprefix("pooling_mode_") for key in flags]
    if isinstance(config.get("pooling_mode"), str):
        names = [config["pooling_mode"]]
    modes = [name.removesuffix("_tokens").removesuffix("_token") for name in names]
    if not modes:
        return PoolingMode.MEAN
    if len(modes) > 1 or modes[0] not in list(PoolingMode):
        known = [str(mode) for mode in PoolingMode]
        raise ModelError("retrieval.unknown_pooling", path=path, modes=modes, known=known)
    return PoolingMode(modes[0])


def _load_prompts(folder: Path) -> dict[str, str]:
    """What is put before a question and before a text; mostly nothing."""
    prompts = _load_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    text = prompts.get("document") or prompts.get("passage") or ""
    return {"question": str(prompts.get("query") or ""), "text": str(text)}


def _load_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError("retrieval.embedder_file_damaged", path=path, fault=error) from error
    return config if isinstance(config, dict) else {}


def _download(name: str, hub: str) -> Path:
    try:
        if hub == "modelscope":
            from modelscope import snapshot_download as download
        else:
            from huggingface_hub import snapshot_download as download
        return Path(download(name, allow_patterns=MODEL_FILES))
    except ImportError as error:
        raise ModelError("retrieval.modelscope_missing", name=name) from error
    except Exception as error:
        fault = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            "retrieval.embedder_not_fetched", name=name, hub=hub, fault=fault
        ) from error


@cache
def _log_no_model_once() -> None:
    log.info("No embedding model is set: search goes by words alone.")
