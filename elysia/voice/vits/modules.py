"""A VITS generator as three modules that take their noise as an input: text, flow, decoder.

The weights are those of transformers' VitsModel. Attention and spline are rewritten without shapes that
an example fixes and without boolean indexing, so that the same code runs in torch and exports to ONNX,
and the spline cannot fail when no value lies inside its bounds.
Paper: https://arxiv.org/abs/2106.06103.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from transformers import VitsConfig, VitsModel

from elysia.core.errors import VoiceError
from elysia.voice.vits.config import read_json, receptive_fields

MIN_BIN = 1e-3  # of a spline's bins and slopes
Array = np.ndarray[Any, np.dtype[Any]]


class VitsBackend(Protocol):
    """What `engines.vits` runs: torch's modules or ONNX Runtime's.

    Shapes: T symbols, F frames, C channels, G channels of a speaker's embedding.
    """

    def text(self, ids: Array, speaker: Array | None, noise: Array) -> tuple[Array, Array, Array]:
        """ids (1, T), speaker (1, G, 1), noise (1, 2, T) -> means (T, C), log deviations (T, C),
        log durations in frames (T).
        """

    def flow(self, latents: Array, speaker: Array | None) -> Array:
        """(1, C, F) of the prior -> (1, C, F) of the decoder."""

    def decode(self, latents: Array, speaker: Array | None, left: int, right: int) -> Array:
        """(1, C, F) -> samples from -1 to 1, ((F - left - right) * hop).

        The `left` and `right` frames are context only: `receptive_field` of them, or none where the
        sentence begins or ends.
        """

    @property
    def receptive_field(self) -> int:
        """Frames of context that the decoder needs on either side."""

    def speaker(self, number: int) -> Array | None:
        """A speaker's embedding, (1, G, 1); None for a model with one voice."""


def remove_weight_norm(model: nn.Module) -> nn.Module:
    """Fold every weight norm into plain weights; saves a third of the time of small convolutions."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return model


class TextModule(nn.Module):
    """Symbols -> prior and durations."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.text_encoder
        self.durations = model.duration_predictor
        self.stochastic = bool(model.config.use_stochastic_duration_prediction)

    def forward(
        self, ids: Tensor, noise: Tensor, speaker: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(1, T), (1, 2, T), (1, G, 1) -> means (1, T, C), log deviations, log durations (1, T)."""
        mask = torch.ones_like(noise[:, :1])
        hidden = self.encoder.embed_tokens(ids) * math.sqrt(self.encoder.config.hidden_size)
        for layer in self.encoder.encoder.layers:
            hidden = layer.layer_norm(hidden + relative_attention(layer.attention, hidden))
            hidden = layer.final_layer_norm(
                hidden + layer.feed_forward(hidden, mask.transpose(1, 2))
            )
        hidden = hidden.transpose(1, 2)
        means, deviations = self.encoder.project(hidden).transpose(1, 2).chunk(2, dim=2)
        if self.stochastic:
            log_durations = sample_durations(self.durations, hidden, mask, speaker, noise)
        else:
            # noise * 0: an ONNX graph would drop an input that it does not use
            log_durations = self.durations(hidden, mask, speaker)[:, 0] + noise[:, 0] * 0
        return means, deviations, log_durations


def relative_attention(layer: Any, hidden: Tensor) -> Tensor:
    """Self-attention with learned embeddings of the distance within a window; (1, T, H) -> (1, T, H)."""
    time = hidden.shape[1]
    heads, size, window = layer.num_heads, layer.head_dim, layer.window_size

    def split(tensor: Tensor) -> Tensor:
        return tensor.reshape(1, -1, heads, size).transpose(1, 2)

    query = split(layer.q_proj(hidden)) * layer.scaling
    key, value = split(layer.k_proj(hidden)), split(layer.v_proj(hidden))
    scores = query @ key.transpose(2, 3)
    if window:
        at = torch.arange(time, device=hidden.device)
        apart = at[None, :] - at[:, None]  # (T, T), key minus query
        near = (apart.abs() <= window).to(hidden.dtype)
        place = (apart.clamp(-window, window) + window)[None, None].expand(1, heads, -1, -1)
        scores = scores + near * (query @ layer.emb_rel_k.transpose(1, 2)).gather(3, place)
    weights = scores.softmax(dim=-1)
    out = weights @ value
    if window:
        beside = at[:, None] + torch.arange(-window, window + 1, device=hidden.device)[None, :]
        inside = ((beside >= 0) & (beside < time)).to(hidden.dtype)
        # The largest index is a tensor, not a number, or the graph would keep the example's length.
        reached = torch.minimum(beside.clamp(min=0), at[-1])[None, None].expand(1, heads, -1, -1)
        out = out + (weights.gather(3, reached) * inside) @ layer.emb_rel_v
    out = out.transpose(1, 2).reshape(1, -1, heads * size)
    return layer.out_proj(out)  # type: ignore[no-any-return]


def sample_durations(
    predictor: Any, hidden: Tensor, mask: Tensor, speaker: Tensor | None, noise: Tensor
) -> Tensor:
    """Run the stochastic duration predictor backwards: noise (1, 2, T) -> log durations (1, T)."""
    hidden = predictor.conv_pre(hidden)
    if speaker is not None:
        hidden = hidden + predictor.cond(speaker)
    hidden = predictor.conv_proj(predictor.conv_dds(hidden, mask))
    latents = noise
    affine, *flows = predictor.flows
    for flow in reversed(flows[1:]):  # like the paper's code, sampling leaves out the first
        first, second = latents.flip(1).chunk(2, dim=1)
        spline = flow.conv_proj(flow.conv_dds(flow.conv_pre(first), mask, hidden))
        spline = spline.reshape(1, 1, 3 * flow.num_bins - 1, -1).permute(0, 1, 3, 2)
        scale = math.sqrt(flow.filter_channels)
        second = inverse_spline(
            second,
            spline[..., : flow.num_bins] / scale,
            spline[..., flow.num_bins : 2 * flow.num_bins] / scale,
            spline[..., 2 * flow.num_bins :],
            float(flow.tail_bound),
        )
        latents = torch.cat([first, second], dim=1)
    latents = (latents.flip(1) - affine.translate) * torch.exp(-affine.log_scale)
    log_durations: Tensor = latents[:, 0]
    return log_durations


def inverse_spline(
    outputs: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, bound: float
) -> Tensor:
    """A monotonic rational-quadratic spline backwards, the identity outside of ±bound.

    outputs (1, 1, T), widths and heights (1, 1, T, bins), slopes (1, 1, T, bins - 1), unnormalised.
    Durkan et al., https://arxiv.org/abs/1906.04032, equations 6 to 8.
    """
    inside = outputs.clamp(-bound, bound)
    across, up = spline_edges(widths, bound), spline_edges(heights, bound)
    steep = MIN_BIN + F.softplus(slopes)
    steep = F.pad(steep, (1, 1), value=1.0)  # identity outside: slope 1 at both ends
    # The bin: how many inner edges are not above the value.
    index = (inside[..., None] >= up[..., 1:-1]).sum(dim=-1, keepdim=True)

    def at(values: Tensor) -> Tensor:
        return values.gather(-1, index)[..., 0]

    left, width = at(across[..., :-1]), at(across[..., 1:] - across[..., :-1])
    low, height = at(up[..., :-1]), at(up[..., 1:] - up[..., :-1])
    slope, before, after = height / width, at(steep[..., :-1]), at(steep[..., 1:])
    rise, bend = inside - low, before + after - 2 * slope
    a = height * (slope - before) + rise * bend
    b = height * before - rise * bend
    c = -slope * rise
    root = 2 * c / (-b - torch.sqrt((b * b - 4 * a * c).clamp(min=0)))
    return torch.where(outputs.abs() <= bound, root * width + left, outputs)


def spline_edges(sizes: Tensor, bound: float) -> Tensor:
    """The edges of a spline's bins, from -bound to bound: (…, bins) -> (…, bins + 1)."""
    shares = MIN_BIN + (1 - MIN_BIN * sizes.shape[-1]) * sizes.softmax(dim=-1)
    inner = 2 * bound * shares.cumsum(dim=-1)[..., :-1] - bound
    return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


class FlowModule(nn.Module):
    """Latents of the prior -> latents of the decoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.flow = model.flow

    def forward(self, latents: Tensor, speaker: Tensor | None = None) -> Tensor:
        """(1, C, F), (1, G, 1) -> (1, C, F)."""
        mask = torch.ones_like(latents[:, :1])
        return self.flow(latents, mask, speaker, reverse=True)  # type: ignore[no-any-return]


class TorchBackend:
    """The three modules in torch, without gradients."""

    def __init__(self, model: Any) -> None:
        model = remove_weight_norm(model.eval())
        self._text, self._flow, self._decoder = TextModule(model), FlowModule(model), model.decoder
        self.receptive_field = receptive_fields(model.config.to_dict())[0]
        self._speakers = getattr(model, "embed_speaker", None)

    @torch.inference_mode()
    def text(self, ids: Array, speaker: Array | None, noise: Array) -> tuple[Array, Array, Array]:
        """See VitsBackend."""
        out = self._text(torch.from_numpy(ids), torch.from_numpy(noise), _to_tensor(speaker))
        means, deviations, durations = (tensor[0].numpy() for tensor in out)
        return means, deviations, durations

    @torch.inference_mode()
    def flow(self, latents: Array, speaker: Array | None) -> Array:
        """See VitsBackend."""
        out: Array = self._flow(torch.from_numpy(latents), _to_tensor(speaker)).numpy()
        return out

    @torch.inference_mode()
    def decode(self, latents: Array, speaker: Array | None, left: int, right: int) -> Array:
        """See VitsBackend."""
        out: Array = self._decoder(torch.from_numpy(latents), _to_tensor(speaker))[0, 0].numpy()
        return trim_ends(out, latents.shape[2], left, right)

    def speaker(self, number: int) -> Array | None:
        """See VitsBackend."""
        if self._speakers is None:
            return None
        out: Array = self._speakers.weight[number].detach().numpy()[None, :, None]
        return out


def trim_ends(samples: Array, frames: int, left: int, right: int) -> Array:
    """`samples` of `frames` frames, without `left` and `right` frames at the ends."""
    hop = len(samples) // frames
    return samples[left * hop : (frames - right) * hop]


def _to_tensor(array: Array | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


WEIGHTS_FILE = "model.safetensors"


def load_backend(folder: Path) -> TorchBackend:
    """The model of a folder. Raises VoiceError when weights are missing, truncated or of another shape."""
    return TorchBackend(load_vits_model(folder))


def load_vits_model(folder: Path) -> Any:
    """transformers' VitsModel with the folder's weights, and with weight norms if they were saved so.

    Reads safetensors only: a pickle could run code.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        pickled = (folder / "pytorch_model.bin").is_file()
        code = "voice.weights_pickled" if pickled else "voice.weights_missing"
        raise VoiceError(code, folder=folder, file=WEIGHTS_FILE)
    config = VitsConfig(**read_json(folder / "config.json"))
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise VoiceError("voice.weights_damaged", path=path, error=str(error)) from None
    model = VitsModel(config)
    if any(".resblocks.0" in name and "original0" in name for name in tensors):
        model.decoder.apply_weight_norm()
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[1:3]).strip()
        raise VoiceError("voice.weights_unfit", path=path, reason=reason) from None
    return model.eval()
