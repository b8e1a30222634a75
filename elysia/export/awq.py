"""From a model folder to one with AWQ weights (4 bits, groups of 128), as LMDeploy serves them.

LMDeploy computes them in a process of its own environment (`lmdeploy_process`), from conversations of
the training. Here they get the architecture's own names, are verified against the model, and are put
in place with their run card.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import elysia
from elysia.core.errors import DataError, ExportError
from elysia.core.files import staged_folder
from elysia.core.i18n import Text
from elysia.core.paths import resolve_bundled
from elysia.core.run_card import RunCard
from elysia.data.formats.conversion import load_chosen_conversations
from elysia.data.schema import Sample
from elysia.data.tokenize.sample_tokenizer import tokenize_samples
from elysia.evaluate.likelihood import kl_divergence
from elysia.export.merge import copy_model_files
from elysia.export.shards import ShardReader, TensorSpec, parse_size, write_shards
from elysia.export.verify_gguf import MAX_PROMPT_TOKENS, choose_texts
from elysia.models import loading
from elysia.models.architectures.internlm2 import FUSED_QKV, fuse_wqkv, get_stored_name
from elysia.models.chat_format import load_template
from elysia.models.quantization import AWQ_BITS, AWQ_GROUP_SIZE, VALUES_PER_WORD
from elysia.models.saving import rewrite_json

AWQ_ARCHITECTURES = ("internlm2", "llama", "qwen2")
# The mean KL(model || AWQ) in nats that is accepted: as for 4 bits in a GGUF.
MAX_MEAN_KL = 0.2
MIN_CALIBRATION_TOKENS = 16  # fewer say nothing about a layer's inputs
MIN_CONVERSATION_TOKENS = 4  # of any conversation: bounds how many are needed for so many tokens
AWQ_CONFIG = {
    "quant_method": "awq", "version": "gemm", "bits": AWQ_BITS, "group_size": AWQ_GROUP_SIZE,
    "zero_point": True,
}  # fmt: skip


@dataclass(frozen=True)
class AwqVerification:
    """What was measured: the mean and the largest KL(model || AWQ), in nats, over `positions`."""

    kl: float
    kl_max: float
    positions: int


@dataclass(frozen=True)
class AwqResult:
    """An AWQ folder that was written; `rows` of `length` tokens calibrated it, on `device`."""

    path: Path
    verification: AwqVerification
    rows: int
    length: int
    device: str


def quantize_awq(
    model: Path,
    out: Path | None = None,
    *,
    python: Path,
    samples: int = 128,
    length: int = 512,
    device: str = "auto",
    prompts: tuple[str, ...] = (),
    max_kl: float | None = None,
) -> AwqResult:
    """Write `model` with AWQ weights to `out`; when None to MODEL-awq beside it.

    Args:
        python: the interpreter of LMDeploy's environment.
        samples, length: rows of tokens to calibrate with, from the data of the run card; 0 samples
            rounds the weights without calibration.
        device: auto, cpu or cuda, for the child process.
        prompts: texts to verify with, template included; when empty `verify_gguf.SAMPLE_TEXTS`.
        max_kl: bound on the mean KL; MAX_MEAN_KL when None.

    Raises ExportError for a model whose layers do not divide into groups, for one without data to
    calibrate with, and when the child process or the verification fails; then nothing is left behind.
    """
    config = loading.load_config(model)
    check_awq_support(config, model)
    out = out or model.resolve().parent / f"{model.resolve().name}-awq"
    length = min(length, int(config.max_position_embeddings))
    tokenizer = loading.load_tokenizer(model)
    rows = build_calibration_rows(model, tokenizer, samples, length) if samples else []
    if samples and not rows:
        raise ExportError("export.no_calibration_data", folder=model)
    with staged_folder(out, replaces=_is_awq_export) as staging:
        with tempfile.TemporaryDirectory(dir=staging) as work:
            used_device = run_lmdeploy(python, Path(work), model, rows, device)
            write_architecture_tensors(ShardReader(Path(work) / "raw"), config, staging)
        copy_model_files(model, staging)
        _write_quantization_config(staging)
        verification = verify_awq(model, staging, tokenizer, prompts)
        bound = MAX_MEAN_KL if max_kl is None else max_kl
        if not verification.kl <= bound:
            raise ExportError("export.awq_kl", kl=verification.kl, bound=bound)
        row_length = len(rows[0]) if rows else 0
        result = AwqResult(out, verification, len(rows), row_length, used_device)
        _build_awq_card(model, result).write(staging)
    return result


def check_awq_support(config: Any, model: Path) -> None:
    """ExportError for another architecture, weights that are quantized already, or odd sizes."""
    if getattr(config, "quantization_config", None):
        raise ExportError("export.already_quantized", folder=model)
    if config.model_type not in AWQ_ARCHITECTURES:
        raise ExportError(
            "export.unsupported_model_type", folder=model, model_type=config.model_type,
            target="AWQ", supported=AWQ_ARCHITECTURES,
        )  # fmt: skip
    head = loading.get_head_dim(config)
    inputs = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads * head_dim": config.num_attention_heads * head,
    }
    for name, size in inputs.items():
        if size % AWQ_GROUP_SIZE:
            raise ExportError(
                "export.awq_size", folder=model, name=name, size=size, group=AWQ_GROUP_SIZE
            )
    if head % VALUES_PER_WORD:
        raise ExportError("export.awq_head", folder=model, size=head, multiple=VALUES_PER_WORD)


def build_calibration_rows(model: Path, tokenizer: Any, count: int, length: int) -> list[list[int]]:
    """At most `count` rows of `length` token ids (one shorter row when there is less).

    Whole conversations of the data that the run card names, encoded as in training, follow each other
    in a fixed random order and are cut where a row is full. Empty when no data is left; ExportError
    when what is left is shorter than MIN_CALIBRATION_TOKENS.
    """
    card = RunCard.read(model)
    samples = load_training_samples(card)
    if card is None or not samples or not card.template:
        return []
    random.Random(0).shuffle(samples)
    ids = tokenize_samples(
        samples[: count * length // MIN_CONVERSATION_TOKENS + 1],
        load_template(card.template),
        tokenizer,
        system=card.system,
        max_length=2**31 - 1,
    ).ids.tolist()[: count * length]
    if len(ids) < MIN_CALIBRATION_TOKENS:
        raise ExportError("export.too_little_data", folder=model, tokens=len(ids))
    length = min(length, len(ids))
    return [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]


def load_training_samples(card: RunCard | None) -> list[Sample]:
    """Every conversation of the data that the card names; of preference pairs, the chosen one."""
    samples: list[Sample] = []
    for source in card.datasets if card else []:
        try:
            samples += load_chosen_conversations(resolve_bundled(source["path"]), source["format"])
        except DataError:
            continue  # moved since the training
    return samples


def run_lmdeploy(python: Path, work: Path, model: Path, rows: list[list[int]], device: str) -> str:
    """Let LMDeploy quantize into work/raw; returns the device that it used.

    Raises ExportError with its last line of output when it fails.
    """
    job = {
        "model": str(model.resolve()), "out": str(work / "raw"), "rows": rows, "device": device,
    }  # fmt: skip
    (work / "job.json").write_text(json.dumps(job))
    # Only our package: the folder that holds it may hold this environment's torch, too.
    (work / "elysia").symlink_to(Path(elysia.__file__).resolve().parent)
    environment = os.environ | {"PYTHONPATH": str(work), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [str(python.absolute()), "-m", "elysia.export.lmdeploy_process", "job.json"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if process.returncode:
        lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
        exit_code = Text("export.exit_code", {"code": process.returncode})
        reason = lines[-1][:300] if lines else exit_code
        raise ExportError("export.lmdeploy_failed", folder=model, reason=reason)
    answer: dict[str, str] = json.loads(process.stdout.splitlines()[-1])
    return answer["device"]


def write_architecture_tensors(raw: ShardReader, config: Any, folder: Path) -> None:
    """The child's tensors under the architecture's own names, floats in float16."""
    sources = dict(iter_tensor_sources(raw, config))

    def produce(name: str) -> Tensor:
        parts = [raw.tensor(source) for source in sources[name]]
        tensor = fuse_packed_wqkv(name, parts, config) if len(parts) > 1 else parts[0]
        return tensor.half() if tensor.is_floating_point() else tensor

    specs = []
    for name, parts in sources.items():
        part_specs = [raw.spec(part) for part in parts]
        dtype, shape = part_specs[0].dtype, part_specs[0].shape
        if len(part_specs) > 1:
            shape = (*shape[:-1], sum(spec.shape[-1] for spec in part_specs))
        specs.append(TensorSpec(name, torch.float16 if dtype.is_floating_point else dtype, shape))
    write_shards(folder, specs, produce, parse_size("2GB"))


def iter_tensor_sources(raw: ShardReader, config: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name to write, the names of its sources), of which a fused `wqkv` has three."""
    query = FUSED_QKV[1][0]
    for name in raw:
        if config.model_type != "internlm2":
            yield name, (name,)
        elif query in name:
            parts = tuple(name.replace(query, part) for part in FUSED_QKV[1])
            yield name.replace(query, FUSED_QKV[0]), parts
        elif not any(part in name for part in FUSED_QKV[1]):
            yield get_stored_name(name), (name,)


def fuse_packed_wqkv(name: str, parts: list[Tensor], config: Any) -> Tensor:
    """One packed part (qweight, qzeros, scales) of query, key and value as that part of `wqkv`.

    Outputs are the last dimension of a packed layer, and a head's outputs are whole words.
    """
    width = loading.get_head_dim(config)
    if name.rpartition(".")[2] in ("qweight", "qzeros"):
        width //= VALUES_PER_WORD
    query, key, value = (part.movedim(-1, 0) for part in parts)
    fused = fuse_wqkv(query, key, value, config.num_key_value_heads, width)
    return fused.movedim(0, -1).contiguous()


@torch.inference_mode()
def verify_awq(
    model: Path, quantized: Path, tokenizer: Any, prompts: tuple[str, ...] = ()
) -> AwqVerification:
    """Compare the two folders' distributions after every token of some texts, in float32."""
    rows = [
        tokenizer(text, add_special_tokens=False)["input_ids"][-MAX_PROMPT_TOKENS:]
        for text in choose_texts(prompts)
    ]
    reference = _compute_log_probs(model, rows)
    actual = _compute_log_probs(quantized, rows)
    kl = torch.cat(
        [kl_divergence(p, q).clamp(min=0) for p, q in zip(reference, actual, strict=True)]
    )
    return AwqVerification(float(kl.mean()), float(kl.max()), kl.numel())


def _compute_log_probs(folder: Path, rows: list[list[int]]) -> list[Tensor]:
    """Log-probabilities (tokens, vocabulary) of each row. The model is freed on return."""
    model = loading.load_causal_lm(folder, dtype="float32", device="cpu")
    logits = [model(input_ids=torch.tensor([row])).logits[0].float() for row in rows]
    return [row_logits.log_softmax(-1) for row_logits in logits]


def _write_quantization_config(folder: Path) -> None:
    def describe(config: dict[str, Any]) -> dict[str, Any]:
        config.pop("auto_map", None)
        return config | {
            "dtype": "float16",
            "torch_dtype": "float16",
            "quantization_config": AWQ_CONFIG,
        }

    rewrite_json(folder / "config.json", describe)


def _build_awq_card(model: Path, result: AwqResult) -> RunCard:
    card = RunCard.read(model) or RunCard(stage="quantized", base_model=str(model), method="full")
    calibration = {"rows": result.rows, "length": result.length, "device": result.device}
    quantization = {
        "format": "awq", "bits": AWQ_BITS, "group_size": AWQ_GROUP_SIZE, "calibration": calibration,
    }  # fmt: skip
    return card.updated(
        stage="quantized",
        versions=card.versions | {"elysia": elysia.__version__},
        metrics={f"awq_{name}": value for name, value in asdict(result.verification).items()},
        extra=card.extra | {"quantization": quantization},
    )


def _is_awq_export(folder: Path) -> bool:
    card = RunCard.read(folder)
    quantization = card.extra.get("quantization", {}) if card else {}
    return isinstance(quantization, dict) and quantization.get("format") == "awq"
