"""The model that would be trained, without its weights: config.json is enough.

Its passes carry shapes alone (trace.py watches them). Knows nothing of memory, time or data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from elysia.models import loading
from elysia.train.distributed import sequence_parallel
from elysia.train.kernels import packed_attention as segments
from elysia.train.kernels.chunked_loss import cross_entropy_sum, log_probs
from elysia.train.methods.reward import compute_rewards, reward_losses, select_hidden_states
from elysia.train.methods.sft import ModelInputs, SupervisedFinetune, extend_segments

BLOCK = 64  # weights that share an NF4 scale
WINDOW = 64 * 1024  # bytes of a file that Linux maps around the one that is read


class MetaModel(SupervisedFinetune):
    """SupervisedFinetune on tensors without content. Build it anywhere; give it content-free tensors
    (`trace.without_content`) and call it inside a FakeTensorMode.

    Args: `objective`, "sft", "dpo", "orpo" or "reward"; others as of SupervisedFinetune. Of processes
    that share a row it is the first: the others need not be there.
    """

    def __init__(
        self, *, objective: str = "sft", sequence_parallel_size: int = 1, **kwargs: Any
    ) -> None:
        self.is_reward_model = objective == "reward"
        with torch.device("meta"):
            super().__init__(**{**kwargs, "device": "cpu"})
        self.objective = objective
        if sequence_parallel_size > 1:
            self.sequence_group = sequence_parallel.FakeProcessGroup(sequence_parallel_size)

    def load_base(
        self, llm: dict[str, Any], dtype: torch.dtype, device: str, attention: str
    ) -> Any:
        config = loading.load_config(Path(llm["path"]))
        self.stored: Any = config.dtype  # of the weights in their files
        kind: Any = AutoModelForCausalLM
        if self.is_reward_model:
            kind, config.num_labels = AutoModelForSequenceClassification, 1
        base = kind.from_config(
            config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )
        if llm.get("bits") == 4:
            _pack(base, dtype, llm.get("double_quant", True))
        return base

    def has_linear_head(self) -> bool:
        """Nothing can be tried out without weights: a body and a head, and no known extra between."""
        body, head, config = (
            self.causal.get_decoder(),
            self.causal.get_output_embeddings(),
            self.causal.config,
        )
        extras = ("final_logit_softcapping", "logit_scale", "logits_scaling")
        plain = all(getattr(config, name, None) in (None, 1, 1.0) for name in extras)
        return plain and body is not None and body is not self.causal and head is not None

    @contextlib.contextmanager
    def prepare_inputs(self, batch: dict[str, Any]) -> Iterator[ModelInputs]:
        """`batch` has `shape` (rows, positions), `segments` (None where rows are padded) and
        `predictions`, as numbers."""
        (rows, length), group = batch["shape"], self.sequence_group
        lengths, sharing = batch["segments"], 1 if group is None else group.size()
        if lengths is not None and sum(lengths) < length:
            lengths = extend_segments(lengths, length - sum(lengths))
        ids = torch.zeros(rows, length // sharing, dtype=torch.long)
        tensors = {"input_ids": ids, "position_ids": torch.zeros_like(ids)}
        # Positions by number: a mask's count would have to be read.
        place = torch.zeros(-(-batch["predictions"] // sharing), dtype=torch.long)
        kept: Any = (torch.zeros_like(place), place)
        if self.noise:
            self._lengths = torch.ones(length // sharing, 1)
        own = (
            self.causal.config._attn_implementation == segments.IMPLEMENTATION
            and lengths is not None
        )
        options = {"segments": lengths} if own else {}
        options |= {} if group is None else {"sequence_group": group}
        guard = segments.packed_pass() if own else contextlib.nullcontext()
        with guard, self._autocast():
            yield ModelInputs(tensors, options, ids, kept)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        if self.is_reward_model:
            return self._ranked(batch)
        with self.prepare_inputs(batch) as reading:
            if self.objective == "dpo" and self.adapted:
                with torch.no_grad(), self.llm.disable_adapter():
                    self._scores(reading)
            if self.objective == "sft":
                hidden, head = self.hidden_states(reading)
                return cross_entropy_sum(
                    hidden, head, reading.targets[reading.is_target], self.loss_chunk
                )
            return self._scores(reading).sum()

    def _ranked(self, batch: dict[str, Any]) -> Tensor:
        samples = len(batch["segments"] or range(batch["shape"][0]))
        places = torch.zeros(
            samples + samples % 2, dtype=torch.long
        )  # data cut short may end amid a pair
        with self.prepare_inputs(batch) as reading:
            hidden = select_hidden_states(self.causal, reading, places, places)
        return reward_losses(compute_rewards(self.causal.score, hidden)).sum()

    def unread(self, words: NDArray[np.int64] | None) -> int:
        """Bytes of the embeddings that a CPU never reads when the data hold no other ids than `words`.

        A weight that is loaded as it lies in its file is that file, mapped: what nobody reads takes no
        memory. It does where it trains, is the head's as well, or comes in another dtype.
        """
        embedding, head = self.causal.get_input_embeddings(), self.causal.get_output_embeddings()
        weight = embedding.weight
        tied = head is not None and head.weight is weight
        if words is None or weight.requires_grad or tied or weight.dtype != self.stored:
            return 0
        size: int = weight.numel() * weight.itemsize
        row: int = weight.shape[1] * weight.itemsize
        # A row may begin in one window and end in others.
        read = np.unique(np.concatenate([words * row // WINDOW, ((words + 1) * row - 1) // WINDOW]))
        return max(size - max(len(read) * WINDOW, len(words) * row), 0)

    def _scores(self, reading: ModelInputs) -> Tensor:
        hidden, head = self.hidden_states(reading)
        return log_probs(hidden, head, reading.targets[reading.is_target], self.loss_chunk)


class FakeNF4Linear(nn.Linear):
    """A linear layer in the room that bitsandbytes' NF4 takes, which makes its weight whole for every
    product; DoRA asks for it, too, as PEFT asks HQQ's layers: by `W_q` and `dequantize`."""

    def __init__(self, like: nn.Linear, dtype: torch.dtype, double_quant: bool) -> None:
        super().__init__(like.in_features, like.out_features, like.bias is not None, dtype=dtype)
        count = like.in_features * like.out_features
        self.compute_dtype = dtype
        self.weight = nn.Parameter(_bytes(-(-count // 2)), requires_grad=False)
        scales = -(-count // BLOCK)
        # Scales of a byte each, and one of four bytes for 256 of them; else four bytes each.
        size = scales + 4 * -(-scales // 256) if double_quant else 4 * scales
        self.register_buffer("scales", _bytes(size))

    @property
    def W_q(self) -> Tensor:
        return self.weight

    def dequantize(self) -> Tensor:
        """The whole weight, (out, in)."""
        return _whole(self.weight, (self.out_features, self.in_features), self.compute_dtype)

    def forward(self, x: Tensor) -> Tensor:
        shape = (self.out_features, self.in_features)
        made: Tensor = _FourBitProduct.apply(x.to(self.compute_dtype), self.weight, shape)
        return made.to(x.dtype).clone()  # PEFT's layer keeps a copy, too


def _bytes(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8)


class _FourBitProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.shape, ctx.packed = shape, packed
        return F.linear(x, _whole(packed, shape, x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return torch.matmul(grads[0], _whole(ctx.packed, ctx.shape, grads[0].dtype)), None, None


def _whole(packed: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    import bitsandbytes  # noqa: F401  # registers the operation

    scales = torch.empty(-(-shape[0] * shape[1] // BLOCK))
    made: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
        packed.view(-1, 1), scales, BLOCK, "nf4", shape, dtype
    )
    return made


def _pack(base: Any, dtype: torch.dtype, double_quant: bool) -> None:
    """Put 4-bit layers in place of the linear ones, as transformers does: the head stays."""
    head = getattr(base, "score", None) or base.get_output_embeddings()
    for name, module in list(base.named_modules()):
        if type(module) is nn.Linear and module is not head:
            parent, _, last = name.rpartition(".")
            setattr(base.get_submodule(parent), last, FakeNF4Linear(module, dtype, double_quant))
