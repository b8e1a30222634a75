"""The model that is trained: a causal language model, its adapters, and the loss of one micro-batch.

Knows nothing of files, optimizers or schedules. XTuner's name for it, SupervisedFinetune, is kept.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elysia.core.errors import ModelError
from elysia.data.tokenize.encoder import IGNORE
from elysia.models import adapters, loading
from elysia.train.distributed import sequence_parallel
from elysia.train.kernels import fused_lora, layer_compile, liger
from elysia.train.kernels import packed_attention as segments
from elysia.train.kernels.chunked_loss import chunk_rows, cross_entropy_sum

log = logging.getLogger(__name__)
NETWORK_INPUTS = ("input_ids", "labels", "position_ids", "attention_mask")
Batch = dict[str, Any]


class ModelInputs(NamedTuple):
    """A micro-batch as the network takes it: its tensors and options, and what is to be predicted.

    `targets` (b, t) has at each position the token to predict or IGNORE; `kept` says where it is one.
    """

    tensors: dict[str, Tensor]
    options: dict[str, Any]
    targets: Tensor
    is_target: Tensor


class SupervisedFinetune(nn.Module):
    """A language model that answers a micro-batch with its summed loss.

    Args:
        llm: `path` and `hub` of the base, `bits` (4 for NF4, None), `double_quant`.
        adapter: arguments of `lora.add_lora`, or None for full fine-tuning.
        dtype: what matrix products run in, "bfloat16", "float16" or "float32"; trained weights
            stay in float32 beside it.
        loss_chunk: rows of logits that are made at once; 0 is as many as suit the device.
        neftune_noise_alpha: strength of the noise on embeddings while training; 0 is none.
        attention: "segments", or the name of one of transformers' implementations.
        sequence_parallel_size: how many processes share a row in training, each with its slice.
        torch_compile: whether decoder layers are compiled (compiled.py).
        liger_kernel: whether Liger's kernels do what they can (liger.py); on a GPU.
    """

    is_reward_model = False  # whether the model has one number for a text in place of words

    def __init__(
        self,
        llm: dict[str, Any],
        adapter: dict[str, Any] | None = None,
        dtype: str = "float32",
        attention: str = "segments",
        gradient_checkpointing: bool = False,
        neftune_noise_alpha: float = 0.0,
        loss_chunk: int = 0,
        sequence_parallel_size: int = 1,
        torch_compile: bool = False,
        liger_kernel: bool = False,
        device: str = "auto",
    ) -> None:
        super().__init__()
        segments.register()
        self.sequence_group = sequence_parallel.build_sequence_group(sequence_parallel_size)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.device_kind = loading.pick_device(device).type
        self.noise = neftune_noise_alpha
        # Full fine-tuning keeps float32 masters; a frozen base need not.
        kept = self.dtype if adapter else torch.float32
        implementation = segments.IMPLEMENTATION if attention == "segments" else attention
        base = self.load_base(llm, kept, device, implementation)
        base.config.use_cache = False
        if gradient_checkpointing:
            base.activation_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        vocabulary = base.config.get_text_config().vocab_size
        self.loss_chunk = loss_chunk or chunk_rows(self.device_kind, vocabulary)
        self.adapted = adapter is not None
        self.llm: Any = (
            adapters.add_lora(base, **adapter, scores=self.is_reward_model) if adapter else base
        )
        fused_lora.patch_lora_and_mlp(self.llm)
        if liger_kernel:
            log.info("Liger's kernels: %s.", liger.patch_model(self.causal))
        if torch_compile:
            layer_compile.compile_layers(self.causal)
        if neftune_noise_alpha:
            self.causal.get_input_embeddings().register_forward_hook(self._noisy)
        if llm.get("bits") == 4:
            adapters.keep_nf4_trainable(self.llm)
        # Sums over a batch's units beside its loss, for the log: set by every forward pass.
        self.metrics: dict[str, float] = {}
        self.uses_linear_head = self.is_reward_model or self.has_linear_head()
        if not self.uses_linear_head:
            log.info(
                "The head of %s does more than multiply: its full logits are made.", llm["path"]
            )

    def load_base(
        self, llm: dict[str, Any], dtype: torch.dtype, device: str, attention: str
    ) -> Any:
        """The network that is trained, its weights loaded."""
        return (loading.load_reward_model if self.is_reward_model else loading.load_causal_lm)(
            loading.resolve_model(llm["path"], llm.get("hub", "huggingface")),
            dtype=dtype,
            device=device,
            bits=llm.get("bits"),
            double_quant=llm.get("double_quant", True),
            attention=attention,
        )

    def has_linear_head(self) -> bool:
        """Whether logits are no more than head(body's last hidden state)."""
        return _has_linear_head(self.causal)

    @property
    def causal(self) -> Any:
        """The transformers model itself, adapters injected."""
        return self.llm.get_base_model() if self.adapted else self.llm

    def forward(self, batch: Batch) -> Tensor:
        """Sum of the losses of all labelled tokens of `batch`, float32, on the model's device.

        batch: input_ids, labels, position_ids (1, t) and `segments`, the samples' lengths; or,
        padded, input_ids, labels, attention_mask (b, t).
        """
        with self.prepare_inputs(batch) as reading:
            hidden, head = self.hidden_states(reading)
            targets = reading.targets[reading.is_target]
            return cross_entropy_sum(hidden, head, targets, self.loss_chunk)

    @contextlib.contextmanager
    def prepare_inputs(self, batch: Batch) -> Iterator[ModelInputs]:
        """`batch` on the model's device; inside, passes are isolated by sample and in `dtype`."""
        device = next(self.causal.parameters()).device
        tensors = {k: batch[k].to(device) for k in NETWORK_INPUTS if k in batch}
        labels = tensors.pop("labels")
        group = self.sequence_group if self.training else None
        lengths = batch.get("segments")
        if "segments" in batch and (device.type == "cpu" or group is not None):
            step = 64 if device.type == "cpu" else 1
            step *= 1 if group is None else group.size()
            tensors, labels, batch = _pad_flat_batch(tensors, labels, batch, step)
        # Position i predicts token i + 1. A sample's first token is never labelled, so no
        # position predicts across samples.
        targets = torch.full_like(labels, IGNORE)
        targets[:, :-1] = labels[:, 1:]
        extra: dict[str, Any] = {"segments": batch["segments"]} if "segments" in batch else {}
        if extra and self.causal.config._attn_implementation != segments.IMPLEMENTATION:
            extra = {}  # flash attention reads the samples' bounds from position_ids
        if self.noise:
            own = torch.tensor(lengths or [labels.shape[1]], device=device)
            rows = torch.repeat_interleave(own, own)
            self._lengths = F.pad(rows, (0, labels.shape[1] - len(rows)), value=1)[:, None]
        if group is not None:
            tensors = {
                name: sequence_parallel.take_slice(tensor, group)
                for name, tensor in tensors.items()
            }
            targets = sequence_parallel.take_slice(targets, group)
            extra["sequence_group"] = group
            if self.noise:
                self._lengths = sequence_parallel.take_slice(self._lengths[None], group)[0]
        guard = segments.packed_pass() if extra else contextlib.nullcontext()
        with guard, self._autocast():
            yield ModelInputs(tensors, extra, targets, targets != IGNORE)

    def hidden_states(self, reading: ModelInputs) -> tuple[Tensor, nn.Module]:
        """What stands at the n predicting positions, (n, h), and the head that makes logits of it."""
        inputs = reading.tensors | {"use_cache": False} | reading.options
        if not self.uses_linear_head:
            return self.causal(**inputs).logits[reading.is_target], nn.Identity()
        hidden = self.causal.get_decoder()(**inputs).last_hidden_state
        return hidden[reading.is_target], self.causal.get_output_embeddings()

    def _noisy(self, embedding: nn.Module, args: Any, output: Tensor) -> Tensor:
        """NEFTune (https://arxiv.org/abs/2310.05914): uniform noise of alpha / sqrt(length * width)
        on the embeddings, in training alone; the length is the sample's, not the pack's."""
        if not embedding.training:
            return output
        size = self.noise / (self._lengths * output.shape[-1]).sqrt()
        return output + (torch.rand_like(output) * 2 - 1) * size.to(output.dtype)

    def _autocast(self) -> Any:
        return torch.autocast(self.device_kind, self.dtype, enabled=self.dtype != torch.float32)

    def trainable_state(self) -> dict[str, Tensor]:
        """The weights that train, on the CPU, under XTuner's names (`llm.` in front)."""
        return {
            name: parameter.detach().cpu().clone()
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `trainable_state` gave; ModelError when names or shapes differ."""
        own = {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }
        odd = sorted(set(own) ^ set(state)) or [n for n in own if own[n].shape != state[n].shape]
        if odd:
            raise ModelError(
                f"The checkpoint's weights are not this config's: {len(odd)} differ, first {odd[0]}. "
                "Was it trained with other LoRA settings or another base?"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])


def _pad_flat_batch(
    tensors: dict[str, Tensor], labels: Tensor, batch: Batch, step: int
) -> tuple[dict[str, Tensor], Tensor, Batch]:
    """A flat batch filled up to a multiple of `step` tokens by positions that teach nothing.

    On a CPU oneDNN compiles a kernel for every new length, which costs more than the step itself.
    """
    fill = -labels.shape[1] % step
    if not fill:
        return tensors, labels, batch
    rest = torch.arange(fill)[None]
    tensors["input_ids"] = torch.cat([tensors["input_ids"], torch.zeros_like(rest)], 1)
    tensors["position_ids"] = torch.cat([tensors["position_ids"], rest], 1)
    labels = torch.cat([labels, torch.full_like(rest, IGNORE)], 1)
    return tensors, labels, {**batch, "segments": extend_segments(batch["segments"], fill)}


def extend_segments(lengths: list[int], fill: int) -> list[int]:
    """Samples' lengths when `fill` positions follow them. They belong to a sample that is alone, whose
    rows never look that far, so that it is attended where it lies; else they are one of their own."""
    return [lengths[0] + fill] if len(lengths) == 1 else [*lengths, fill]


def _has_linear_head(causal: Any) -> bool:
    """Whether logits are no more than head(body's last hidden state): tried out, not assumed."""
    body, head = causal.get_decoder(), causal.get_output_embeddings()
    if body is None or body is causal or head is None:
        return False
    training = causal.training
    causal.eval()
    ids = torch.arange(1, 9, device=next(causal.parameters()).device)[None]
    with torch.no_grad():
        whole = causal(input_ids=ids, use_cache=False).logits.float()
        ours = head(body(input_ids=ids, use_cache=False).last_hidden_state).float()
    causal.train(training)
    return bool(torch.allclose(whole, ours, rtol=1e-3, atol=1e-3))
