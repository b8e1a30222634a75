"""The model that is trained: a causal language model, its adapters, and the loss of one micro-batch.

`SupervisedFinetune` is XTuner's name for it.
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
from elysia.train.kernels import fused_lora, layer_compile, liger, packed_attention
from elysia.train.kernels.chunked_loss import chunk_rows, cross_entropy_sum

log = logging.getLogger(__name__)
NETWORK_INPUTS = ("input_ids", "labels", "position_ids", "attention_mask")
Batch = dict[str, Any]


class ModelInputs(NamedTuple):
    """A micro-batch as the network takes it: its tensors and options, and what is to be predicted.

    `targets` (b, t) has at each position the token to predict, or IGNORE; `is_target` (b, t) is True where
    there is a token to predict.
    """

    tensors: dict[str, Tensor]
    options: dict[str, Any]
    targets: Tensor
    is_target: Tensor


class SupervisedFinetune(nn.Module):
    """A language model that answers a micro-batch with its summed loss.

    Args:
        llm: `path` and `hub` of the base, `bits` (4 for NF4, None), `double_quant`.
        adapter: arguments of `models.adapters.add_lora`, or None for full fine-tuning.
        dtype: what matrix products run in, "bfloat16", "float16" or "float32"; trained weights
            stay in float32 beside it.
        loss_chunk: rows of logits that are made at once; 0: as many as suit the device.
        neftune_noise_alpha: strength of the noise on embeddings while training; 0: none.
        attention: "segments", or the name of one of transformers' implementations.
        sequence_parallel_size: how many processes share a row in training, each with its slice.
        torch_compile: whether decoder layers are compiled (kernels/layer_compile.py).
        liger_kernel: whether Liger's kernels are used (kernels/liger.py); on a GPU.
    """

    is_reward_model = False  # whether the model gives one number for a text instead of words

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
        packed_attention.register()
        self.sequence_group = sequence_parallel.build_sequence_group(sequence_parallel_size)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.device_kind = loading.pick_device(device).type
        self.noise = neftune_noise_alpha
        # Full fine-tuning keeps float32 masters; a frozen base needs none.
        base_dtype = self.dtype if adapter else torch.float32
        implementation = packed_attention.IMPLEMENTATION if attention == "segments" else attention
        base = self.load_base(llm, base_dtype, device, implementation)
        base.config.use_cache = False
        if gradient_checkpointing:
            base.activation_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        vocabulary = base.config.get_text_config().vocab_size
        self.loss_chunk = loss_chunk or chunk_rows(self.device_kind, vocabulary)
        self.adapted = adapter is not None
        is_reward = self.is_reward_model
        self.llm: Any = adapters.add_lora(base, **adapter, scores=is_reward) if adapter else base
        fused_lora.patch_lora_and_mlp(self.llm)
        if liger_kernel:
            log.info("Liger's kernels: %s.", liger.patch_model(self.causal))
        if torch_compile:
            layer_compile.compile_layers(self.causal)
        if neftune_noise_alpha:
            self.causal.get_input_embeddings().register_forward_hook(self._add_noise)
        if llm.get("bits") == 4:
            adapters.keep_nf4_trainable(self.llm)
        # Sums over the units of a batch, like its loss, for the log: set by every forward pass.
        self.metrics: dict[str, float] = {}
        self.uses_linear_head = self.is_reward_model or self.has_linear_head()
        if not self.uses_linear_head:
            log.info(
                "The head of %s is more than one matrix product, so its full logits are computed.",
                llm["path"],
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
        with self.prepare_inputs(batch) as inputs:
            hidden, head = self.hidden_states(inputs)
            targets = inputs.targets[inputs.is_target]
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
            multiple = 64 if device.type == "cpu" else 1
            multiple *= 1 if group is None else group.size()
            tensors, labels, batch = _pad_flat_batch(tensors, labels, batch, multiple)
        # Position i predicts token i + 1. A sample's first token is never labelled, so no
        # position predicts across samples.
        targets = torch.full_like(labels, IGNORE)
        targets[:, :-1] = labels[:, 1:]
        options: dict[str, Any] = {"segments": batch["segments"]} if "segments" in batch else {}
        if options and self.causal.config._attn_implementation != packed_attention.IMPLEMENTATION:
            options = {}  # flash attention reads the samples' bounds from position_ids
        if self.noise:
            sample_lengths = torch.tensor(lengths or [labels.shape[1]], device=device)
            by_position = torch.repeat_interleave(sample_lengths, sample_lengths)
            padding = labels.shape[1] - len(by_position)
            self._lengths = F.pad(by_position, (0, padding), value=1)[:, None]
        if group is not None:
            tensors = {
                name: sequence_parallel.take_slice(tensor, group)
                for name, tensor in tensors.items()
            }
            targets = sequence_parallel.take_slice(targets, group)
            options["sequence_group"] = group
            if self.noise:
                self._lengths = sequence_parallel.take_slice(self._lengths[None], group)[0]
        guard = packed_attention.packed_pass() if options else contextlib.nullcontext()
        with guard, self.autocast():
            yield ModelInputs(tensors, options, targets, targets != IGNORE)

    def hidden_states(self, inputs: ModelInputs) -> tuple[Tensor, nn.Module]:
        """Hidden states at the n predicting positions, (n, h), and the head that turns them into logits."""
        arguments = inputs.tensors | {"use_cache": False} | inputs.options
        if not self.uses_linear_head:
            return self.causal(**arguments).logits[inputs.is_target], nn.Identity()
        hidden = self.causal.get_decoder()(**arguments).last_hidden_state
        return hidden[inputs.is_target], self.causal.get_output_embeddings()

    def _add_noise(self, embedding: nn.Module, args: Any, output: Tensor) -> Tensor:
        """NEFTune (https://arxiv.org/abs/2310.05914): uniform noise of alpha / sqrt(length * width)
        on the embeddings, in training alone; the length is the sample's, not the pack's."""
        if not embedding.training:
            return output
        size = self.noise / (self._lengths * output.shape[-1]).sqrt()
        return output + (torch.rand_like(output) * 2 - 1) * size.to(output.dtype)

    def autocast(self) -> Any:
        """The context in which matrix products run in `dtype`."""
        return torch.autocast(self.device_kind, self.dtype, enabled=self.dtype != torch.float32)

    def trainable_state(self) -> dict[str, Tensor]:
        """The weights that train, on the CPU, under XTuner's names (with the prefix `llm.`)."""
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
        differing = sorted(set(own) ^ set(state)) or [
            name for name in own if own[name].shape != state[name].shape
        ]
        if differing:
            raise ModelError(
                "train.checkpoint_weights_differ", count=len(differing), first=differing[0]
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name])


def _pad_flat_batch(
    tensors: dict[str, Tensor], labels: Tensor, batch: Batch, multiple: int
) -> tuple[dict[str, Tensor], Tensor, Batch]:
    """A flat batch padded to a multiple of `multiple` tokens by positions without labels.

    On a CPU oneDNN compiles a kernel for every new length, which costs more than the step itself.
    """
    fill = -labels.shape[1] % multiple
    if not fill:
        return tensors, labels, batch
    positions = torch.arange(fill)[None]
    tensors["input_ids"] = torch.cat([tensors["input_ids"], torch.zeros_like(positions)], 1)
    tensors["position_ids"] = torch.cat([tensors["position_ids"], positions], 1)
    labels = torch.cat([labels, torch.full_like(positions, IGNORE)], 1)
    return tensors, labels, {**batch, "segments": extend_segments(batch["segments"], fill)}


def extend_segments(lengths: list[int], fill: int) -> list[int]:
    """The lengths of samples when `fill` positions follow them.

    A single sample takes the positions in: its own rows never look that far, and attention can then work on
    the row as it lies in memory. After several samples they are a sample of their own.
    """
    return [lengths[0] + fill] if len(lengths) == 1 else [*lengths, fill]


def _has_linear_head(causal: Any) -> bool:
    """Whether logits are exactly head(last hidden state of the body): tried out, not assumed."""
    body, head = causal.get_decoder(), causal.get_output_embeddings()
    if body is None or body is causal or head is None:
        return False
    training = causal.training
    causal.eval()
    ids = torch.arange(1, 9, device=next(causal.parameters()).device)[None]
    with torch.no_grad():
        whole = causal(input_ids=ids, use_cache=False).logits.float()
        composed = head(body(input_ids=ids, use_cache=False).last_hidden_state).float()
    causal.train(training)
    return bool(torch.allclose(whole, composed, rtol=1e-3, atol=1e-3))
