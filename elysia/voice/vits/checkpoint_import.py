"""Imports a checkpoint of VITS or VITS-fast-fine-tuning as a model folder, tensor by tensor.

A `.pth` is a pickle from a stranger: it is loaded with weights_only, and refused if it needs more. What
a checkpoint is shows in the names and shapes of its tensors, not in its file name; one that is no VITS
generator is refused with what it seems to be.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor
from transformers import VitsConfig, VitsModel

from elysia.core.errors import VoiceError
from elysia.core.files import compute_sha256, staged_folder, write_atomic
from elysia.core.i18n import Text
from elysia.voice.frontend.cleaners import detect_cleaner
from elysia.voice.vits import onnx_runtime, weight_mapping
from elysia.voice.vits.config import VoiceConfig, read_json
from elysia.voice.vits.modules import WEIGHTS_FILE, load_vits_model

# A part of a tensor's name -> what a checkpoint with such a tensor is.
OTHER_ARCHITECTURES = {
    "bert_proj": Text("voice.is_bert_vits2"),
    "enc_p.tone_emb": Text("voice.is_bert_vits2_tones"),
    "ssl_proj": Text("voice.is_gpt_sovits"),
    "enc_p.emb_phone": Text("voice.is_rvc"),
    "f0_decoder": Text("voice.is_so_vits_svc"),
    "enc_p.f0_emb": Text("voice.is_so_vits_svc"),
    "pre_transformer": Text("voice.is_vits2"),
    "discriminators.": Text("voice.is_discriminator"),
    "waveform_decoder.": Text("voice.is_coqui"),
}
# What a VitsConfig raises for numbers that make no model.
CONFIG_ERRORS = (TypeError, ValueError, StrictDataclassError)
_REQUIRED_TENSORS = ("enc_p.emb.weight", "dec.conv_pre.weight", "flow.flows.0.pre.weight")


@dataclass(frozen=True)
class ImportResult:
    """The model folder that was written, what was recognized, and remarks for the user."""

    folder: Path
    config: VoiceConfig
    parameters: int
    difference: float | None = None  # between ONNX and torch, if it was exported
    remarks: list[Text] = field(default_factory=list)


def import_checkpoint(
    checkpoint: str | Path, config: str | Path | None, folder: str | Path, *, onnx: bool = False
) -> ImportResult:
    """Write `folder` from a checkpoint and its config, or from a Hugging Face folder; completely or not
    at all.

    Raises VoiceError, with the reason, for anything but a VITS generator.
    """
    checkpoint = Path(checkpoint)
    if checkpoint.is_dir():
        voice, model = VoiceConfig.read(checkpoint), load_vits_model(checkpoint)
        remarks: list[Text] = []
    else:
        if config is None:
            raise VoiceError("voice.import_needs_config")
        voice, model, remarks = convert_checkpoint(checkpoint, Path(config))
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    difference = None
    with staged_folder(
        folder, VoiceError, replaces=lambda path: (path / "voice.json").is_file()
    ) as to:
        save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()}, str(to / WEIGHTS_FILE)
        )
        write_atomic(to / "config.json", model.config.to_json_string())
        voice.write(to)
        if onnx:
            difference = onnx_runtime.export_onnx(model, to)
    return ImportResult(Path(folder), voice, count, difference, remarks)


def convert_checkpoint(checkpoint: Path, config: Path) -> tuple[VoiceConfig, Any, list[Text]]:
    """(config, transformers' model with the checkpoint's weights, remarks)."""
    settings = read_json(config)
    tensors = read_checkpoint(checkpoint)
    refuse_other_architectures(tensors, checkpoint)
    model_settings, data = (
        _read_section(settings, "model", config),
        _read_section(settings, "data", config),
    )
    remarks: list[Text] = []
    speakers = tensors.get("emb_g.weight")
    if speakers is not None and len(speakers) == 1:
        # transformers builds no table of one row; the second one is never used
        tensors["emb_g.weight"] = speakers.repeat(2, 1)
    model = VitsModel(_build_model_config(tensors, model_settings, data, config))
    if "dec.ups.0.weight_g" in tensors:
        model.decoder.apply_weight_norm()
    load_tensors(model, tensors, checkpoint, remarks)
    symbols = _read_symbols(settings, tensors, config)
    named = (data.get("text_cleaners") or [""])[0]
    cleaner = detect_cleaner(symbols, str(named))
    if cleaner != named:
        remarks.append(Text("voice.other_cleaner", {"named": named, "cleaner": cleaner}))
    count = len(speakers) if speakers is not None else 1
    voice = VoiceConfig(
        symbols, cleaner, int(data.get("sampling_rate", 22_050)), prod(model.config.upsample_rates),
        bool(data.get("add_blank", True)), speakers=_read_speakers(settings, count, config),
        speaker_count=count, source={"file": checkpoint.name, "sha256": compute_sha256(checkpoint)},
    )  # fmt: skip
    return voice, model.eval(), remarks


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` file, in float32, under their original names; nothing in it is executed."""
    if not path.is_file():
        raise VoiceError("voice.no_checkpoint", path=path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                # torch writes no such files; one could unpack to any size
                raise VoiceError("voice.checkpoint_compressed", path=path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles; they are refused, or they are fine
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise VoiceError("voice.checkpoint_refused", path=path, reason=reason) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:120]
        raise VoiceError("voice.checkpoint_damaged", path=path, reason=reason) from None
    if isinstance(data, Mapping):
        for key in ("model", "state_dict", "weight"):
            if isinstance(data.get(key), Mapping):
                data = data[key]
                break
    if not isinstance(data, Mapping) or not data:
        raise VoiceError("voice.checkpoint_no_tensors", path=path)
    tensors = {}
    for name, tensor in data.items():
        if not isinstance(tensor, Tensor):
            raise VoiceError("voice.checkpoint_no_tensor", path=path, name=repr(name))
        tensors[weight_mapping.strip_wrappers(str(name))] = tensor.float()
    return tensors


def refuse_other_architectures(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise VoiceError for tensors of another architecture, and for NaN or infinity."""
    for part, what in OTHER_ARCHITECTURES.items():
        if any(part in name for name in tensors):
            raise VoiceError("voice.other_architecture", path=path, what=what)
    missing = [name for name in _REQUIRED_TENSORS if name not in tensors]
    if missing:
        raise VoiceError("voice.no_generator", path=path, missing=missing)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise VoiceError("voice.not_finite", path=path, name=name)


def load_tensors(
    model: Any, tensors: Mapping[str, Tensor], path: Path, remarks: list[Text] | None = None
) -> None:
    """Load the checkpoint's tensors into `model`: every one must have a place of its shape.

    Only the posterior encoder may be missing, which speaking does not need; `remarks` then says so.
    """
    targets = dict(model.state_dict())
    names = {weight_mapping.original_name(name) for name in targets}
    strange = sorted(set(tensors) - names)
    missing = sorted(names - set(tensors))
    if missing and all(name.startswith("enc_q.") for name in missing):
        if remarks is not None:
            remarks.append(Text("voice.no_posterior_remark"))
        targets = {n: t for n, t in targets.items() if weight_mapping.original_name(n) in tensors}
        for parameter in model.posterior_encoder.parameters():
            parameter.data.zero_()
    elif missing or strange:
        raise VoiceError(
            "voice.other_tensors", path=path,
            missing=_shorten(missing) or Text("voice.none"), unknown=_shorten(strange) or Text("voice.none"),
        )  # fmt: skip
    try:
        model.load_state_dict(weight_mapping.from_original(tensors, targets), strict=False)
    except VoiceError as error:
        raise VoiceError("voice.checkpoint_unfit", path=path, error=error) from None


def _shorten(names: list[str]) -> list[str]:
    """At most three of them."""
    return [*names[:3], "…"] if len(names) > 3 else names


def _build_model_config(
    tensors: Mapping[str, Tensor], model: Mapping[str, Any], data: Mapping[str, Any], path: Path
) -> VitsConfig:
    """transformers' config from the original's; what the shapes of tensors show is taken from them."""
    if str(model.get("resblock", "1")) != "1":
        raise VoiceError("voice.resblock_kind", path=path, kind=model["resblock"])
    try:
        hidden = int(model["hidden_channels"])
        stochastic = "dp.flows.0.m" in tensors
        relative = tensors["enc_p.encoder.attn_layers.0.emb_rel_k"]
        speakers = tensors.get("emb_g.weight")
        conditioned = tensors.get("dec.cond.weight")
        durations = tensors["dp.conv_1.weight"].shape[0] if not stochastic else 256
        return VitsConfig(
            vocab_size=len(tensors["enc_p.emb.weight"]), hidden_size=hidden,
            num_hidden_layers=int(model["n_layers"]), num_attention_heads=int(model["n_heads"]),
            window_size=(relative.shape[1] - 1) // 2, ffn_dim=int(model["filter_channels"]),
            ffn_kernel_size=int(model["kernel_size"]), flow_size=int(model["inter_channels"]),
            spectrogram_bins=int(data.get("filter_length", 1024)) // 2 + 1,
            use_stochastic_duration_prediction=stochastic,
            num_speakers=1 if speakers is None else len(speakers),
            speaker_embedding_size=0 if conditioned is None else conditioned.shape[1],
            upsample_initial_channel=int(model["upsample_initial_channel"]),
            upsample_rates=list(model["upsample_rates"]),
            upsample_kernel_sizes=list(model["upsample_kernel_sizes"]),
            resblock_kernel_sizes=list(model["resblock_kernel_sizes"]),
            resblock_dilation_sizes=[list(sizes) for sizes in model["resblock_dilation_sizes"]],
            sampling_rate=int(data.get("sampling_rate", 22_050)), noise_scale_duration=0.6,
            duration_predictor_filter_channels=durations,
        )  # fmt: skip
    except (*CONFIG_ERRORS, KeyError, IndexError) as error:
        raise VoiceError("voice.bad_model_section", path=path, error=str(error)) from None


def _read_section(settings: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    section = settings.get(name)
    if not isinstance(section, dict):
        raise VoiceError("voice.no_section", path=path, name=name)
    return section


def _read_symbols(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> tuple[str, ...]:
    """The config's symbols, as many as the checkpoint has embeddings."""
    rows = len(tensors["enc_p.emb.weight"])
    symbols = settings.get("symbols")
    if isinstance(symbols, str):
        symbols = list(symbols)
    if not isinstance(symbols, list) or not all(
        isinstance(s, str) and len(s) == 1 for s in symbols
    ):
        raise VoiceError("voice.no_symbols", path=path)
    if len(symbols) != rows:
        raise VoiceError("voice.symbol_count", path=path, count=len(symbols), rows=rows)
    return tuple(symbols)


def _read_speakers(settings: Mapping[str, Any], count: int, path: Path) -> dict[str, int]:
    named = settings.get("speakers") or {}
    if isinstance(named, list):
        named = {str(name): number for number, name in enumerate(named)}
    if not isinstance(named, dict) or not all(isinstance(n, int) for n in named.values()):
        raise VoiceError("voice.bad_speakers", path=path)
    beyond = [name for name, number in named.items() if not 0 <= number < max(count, 1)]
    if beyond:
        raise VoiceError(
            "voice.speaker_beyond", path=path, name=beyond[0], number=named[beyond[0]], count=count
        )
    return named
