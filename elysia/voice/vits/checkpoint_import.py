"""A checkpoint of VITS or VITS-fast-fine-tuning becomes a model folder, tensor for tensor.

A `.pth` is a pickle of a stranger's: it is read with weights_only, and refused when it wants more.
What it is, is told by names and shapes, not by the file's name; whatever is not a VITS generator is
refused with what it seems to be. Knows nothing of how the model speaks.
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
from elysia.voice.frontend.cleaners import detect_cleaner
from elysia.voice.vits import onnx_runtime, weight_mapping
from elysia.voice.vits.config import VoiceConfig, read_json
from elysia.voice.vits.modules import WEIGHTS_FILE, load_vits_model

# A piece of a tensor's name, and what a checkpoint with it is.
OTHER_ARCHITECTURES = (
    ("bert_proj", "a BERT-VITS2 model: it needs a BERT beside it, which is another architecture"),
    ("enc_p.tone_emb", "a BERT-VITS2 model: it has tone embeddings, which VITS has not"),
    ("ssl_proj", "a GPT-SoVITS model: run its api_v2 and use engine = 'http'"),
    ("enc_p.emb_phone", "an RVC model: it converts voices and reads no text"),
    ("f0_decoder", "a so-vits-svc model: it converts voices and reads no text"),
    ("enc_p.f0_emb", "a so-vits-svc model: it converts voices and reads no text"),
    ("pre_transformer", "a VITS2 model: its flows have transformers, which VITS has not"),
    ("discriminators.", "a discriminator (D_*.pth): bring the generator, G_*.pth"),
    ("waveform_decoder.", "a Coqui model: convert it with coqui-tts first"),
)
# What a VitsConfig raises for numbers that make no model.
CONFIG_ERRORS = (TypeError, ValueError, StrictDataclassError)
_REQUIRED_TENSORS = ("enc_p.emb.weight", "dec.conv_pre.weight", "flow.flows.0.pre.weight")


@dataclass(frozen=True)
class ImportResult:
    """What `import_checkpoint` did: the folder, what was recognised, and remarks for the person."""

    folder: Path
    card: VoiceConfig
    parameters: int
    difference: float | None = None  # of ONNX to torch, where it was exported
    remarks: list[str] = field(default_factory=list)


def import_checkpoint(
    checkpoint: str | Path, config: str | Path | None, folder: str | Path, *, onnx: bool = False
) -> ImportResult:
    """Write `folder` from a checkpoint and its config (or from a Hugging Face folder).

    Whole or not at all. VoiceError, with the reason, for whatever is not a VITS generator that can
    be spoken with.
    """
    checkpoint = Path(checkpoint)
    if checkpoint.is_dir():
        card, model = VoiceConfig.read(checkpoint), load_vits_model(checkpoint)
        remarks: list[str] = []
    else:
        if config is None:
            raise VoiceError(
                "A checkpoint needs its config: elysia voice import G_latest.pth finetune_speaker.json"
            )
        card, model, remarks = convert_checkpoint(checkpoint, Path(config))
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    difference = None
    with staged_folder(
        folder, VoiceError, replaces=lambda path: (path / "voice.json").is_file()
    ) as to:
        save_file(
            {k: v.contiguous() for k, v in model.state_dict().items()}, str(to / WEIGHTS_FILE)
        )
        write_atomic(to / "config.json", model.config.to_json_string())
        card.write(to)
        if onnx:
            difference = onnx_runtime.export_onnx(model, to)
    return ImportResult(Path(folder), card, count, difference, remarks)


def convert_checkpoint(checkpoint: Path, config: Path) -> tuple[VoiceConfig, Any, list[str]]:
    """(card, transformers' model with the checkpoint's weights, remarks)."""
    settings = read_json(config)
    tensors = read_checkpoint(checkpoint)
    refuse_other_architectures(tensors, checkpoint)
    model_settings, data = (
        _read_section(settings, "model", config),
        _read_section(settings, "data", config),
    )
    remarks: list[str] = []
    speakers = tensors.get("emb_g.weight")
    if speakers is not None and len(speakers) == 1:
        # transformers has no table of one row; the second is never asked for
        tensors["emb_g.weight"] = speakers.repeat(2, 1)
    model = VitsModel(_build_model_config(tensors, model_settings, data, config))
    if "dec.ups.0.weight_g" in tensors:
        model.decoder.apply_weight_norm()
    load_tensors(model, tensors, checkpoint, remarks)
    symbols = _read_symbols(settings, tensors, config)
    named = (data.get("text_cleaners") or [""])[0]
    cleaner = detect_cleaner(symbols, str(named))
    if cleaner != named:
        remarks.append(
            f"The config names the cleaner '{named}'; the symbols are those of '{cleaner}'."
        )
    count = len(speakers) if speakers is not None else 1
    card = VoiceConfig(
        symbols, cleaner, int(data.get("sampling_rate", 22_050)), prod(model.config.upsample_rates),
        bool(data.get("add_blank", True)), speakers=_read_speakers(settings, count, config),
        speaker_count=count, source={"file": checkpoint.name, "sha256": compute_sha256(checkpoint)},
    )  # fmt: skip
    return card, model.eval(), remarks


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The generator's tensors, in float32, under their original names; nothing of it is executed."""
    if not path.is_file():
        raise VoiceError(f"There is no checkpoint at {path}.")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise VoiceError(f"{path} is compressed inside; torch writes no such checkpoints.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles; they are refused, or they are fine
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise VoiceError(
            f"{path} was refused: beside tensors it holds Python objects or code, "
            f"which is not run. ({reason})"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:120]
        raise VoiceError(f"{path} is damaged or cut short ({reason}); copy it again.") from None
    if isinstance(data, Mapping):
        for key in ("model", "state_dict", "weight"):
            if isinstance(data.get(key), Mapping):
                data = data[key]
                break
    if not isinstance(data, Mapping) or not data:
        raise VoiceError(f"{path} holds no tensors by name: it is no checkpoint of VITS.")
    tensors = {}
    for name, tensor in data.items():
        if not isinstance(tensor, Tensor):
            raise VoiceError(f"{path}: {name!r} is no tensor; it is no checkpoint of VITS.")
        tensors[weight_mapping.strip_wrappers(str(name))] = tensor.float()
    return tensors


def refuse_other_architectures(tensors: Mapping[str, Tensor], path: Path) -> None:
    """VoiceError for other architectures, and for numbers that are none."""
    for piece, what in OTHER_ARCHITECTURES:
        if any(piece in name for name in tensors):
            raise VoiceError(f"{path} is {what}.")
    missing = [name for name in _REQUIRED_TENSORS if name not in tensors]
    if missing:
        raise VoiceError(f"{path} is no VITS generator: it has no {', '.join(missing)}.")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise VoiceError(f"{path}: {name} holds NaN or infinity; the training had failed.")


def load_tensors(
    model: Any, tensors: Mapping[str, Tensor], path: Path, remarks: list[str] | None = None
) -> None:
    """Put the checkpoint's tensors into `model`, every one, in its place and shape."""
    targets = dict(model.state_dict())
    names = {weight_mapping.original_name(name) for name in targets}
    strange = sorted(set(tensors) - names)
    missing = sorted(names - set(tensors))
    if missing and all(name.startswith("enc_q.") for name in missing):
        if remarks is not None:
            remarks.append(
                "The checkpoint has no posterior encoder: it speaks, but cannot be trained on."
            )
        targets = {n: t for n, t in targets.items() if weight_mapping.original_name(n) in tensors}
        for parameter in model.posterior_encoder.parameters():
            parameter.data.zero_()
    elif missing or strange:
        raise VoiceError(
            f"{path} is not the VITS that its config describes: "
            + "; ".join(
                f"{word} {', '.join(found[:3])}{' …' * (len(found) > 3)}"
                for word, found in (("missing", missing), ("unknown", strange))
                if found
            )
        )
    try:
        model.load_state_dict(weight_mapping.from_original(tensors, targets), strict=False)
    except ValueError as error:
        raise VoiceError(f"{path} does not fit its config: {error}.") from None


def _build_model_config(
    tensors: Mapping[str, Tensor], model: Mapping[str, Any], data: Mapping[str, Any], path: Path
) -> VitsConfig:
    """transformers' config from the original's; what shapes tell is taken from them."""
    if str(model.get("resblock", "1")) != "1":
        raise VoiceError(
            f"{path}, key 'model.resblock': only kind 1 is spoken, not {model['resblock']}."
        )
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
        raise VoiceError(
            f"{path}: the section 'model' is not that of a VITS config ({error})."
        ) from None


def _read_section(settings: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    section = settings.get(name)
    if not isinstance(section, dict):
        raise VoiceError(
            f"{path} has no section '{name}': it is not the config of a VITS checkpoint."
        )
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
        raise VoiceError(
            f"{path} has no list 'symbols': add the one that the checkpoint was trained with."
        )
    if len(symbols) != rows:
        raise VoiceError(
            f"{path} lists {len(symbols)} symbols and the checkpoint has {rows}: "
            "it is another checkpoint's config."
        )
    return tuple(symbols)


def _read_speakers(settings: Mapping[str, Any], count: int, path: Path) -> dict[str, int]:
    named = settings.get("speakers") or {}
    if isinstance(named, list):
        named = {str(name): number for number, name in enumerate(named)}
    if not isinstance(named, dict) or not all(isinstance(n, int) for n in named.values()):
        raise VoiceError(f"{path}, key 'speakers': neither names with numbers nor a list of names.")
    beyond = [name for name, number in named.items() if not 0 <= number < max(count, 1)]
    if beyond:
        raise VoiceError(
            f"{path}: the speaker '{beyond[0]}' is number {named[beyond[0]]}, and the checkpoint has "
            f"{count}: it is another checkpoint's config."
        )
    return named
