"""From a model folder to one with AWQ weights (4 bits, groups of 128), as LMDeploy serves them.

LMDeploy chooses the numbers, in a process of its own environment (awq_child.py); here they get the
architecture's own names, are proved against the model, and put in place with their run card.
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
from elysia.core.paths import resolve_bundled
from elysia.core.run_card import RunCard
from elysia.core.templates import PromptTemplate
from elysia.data.formats.conversion import load_chosen_conversations
from elysia.data.schema import Sample
from elysia.data.tokenize.tokenize_samples import tokenize_samples
from elysia.export.merge import copy_model_files
from elysia.export.shards import ShardReader, TensorSpec, parse_size, write_shards
from elysia.export.verify_gguf import MAX_PROMPT_TOKENS, MAX_PROMPTS, SAMPLE_TEXTS
from elysia.models import loading
from elysia.models.architectures.internlm2 import FUSED_QKV, KEY_RENAMES, fuse_wqkv
from elysia.models.quantization import AWQ_BITS, AWQ_GROUP_SIZE, VALUES_PER_WORD

AWQ_ARCHITECTURES = ("internlm2", "llama", "qwen2")
# Mean KL(model || AWQ) in nats over the proof's texts that is let through: as for 4 bits in a GGUF.
MAX_MEAN_KL = 0.2
AWQ_CONFIG = {
    "quant_method": "awq", "version": "gemm", "bits": AWQ_BITS, "group_size": AWQ_GROUP_SIZE, "zero_point": True,
}  # fmt: skip


@dataclass(frozen=True)
class AwqVerification:
    """What was measured: the mean and the largest KL(model || AWQ), in nats, over `positions`."""

    kl: float
    kl_max: float
    positions: int


@dataclass(frozen=True)
class AwqResult:
    """An AWQ folder that stands; `rows` of `length` tokens calibrated it, on `device`."""

    path: Path
    proof: AwqVerification
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
    """Write `model` with AWQ weights to `out` (MODEL-awq, beside it, when None).

    Args:
        python: of LMDeploy's environment.
        samples, length: rows of tokens to calibrate with, from the data of the run card; 0 samples
            rounds the weights as they are.
        device: auto, cpu or cuda, for the child.
        prompts: texts for the proof, template included; a few lines of the proof's own when empty.
        max_kl: on the mean KL; BOUND when None.

    Raises ExportError for a model that does not split into groups, one without data to calibrate
    with, a child that failed, and a proof that failed: then nothing is left.
    """
    config = loading.load_config(model)
    check_awq_support(config, model)
    out = out or model.resolve().parent / f"{model.resolve().name}-awq"
    length = min(length, int(config.max_position_embeddings))
    tokenizer = loading.load_tokenizer(model)
    rows = build_calibration_rows(model, tokenizer, samples, length) if samples else []
    if samples and not rows:
        raise ExportError(
            f"{model} has no run card whose data is still there, so there is nothing to calibrate "
            "with. Merge it again beside its data, or say --samples 0 to round without calibration."
        )
    with staged_folder(out, replaces=_is_awq_export) as staging:
        with tempfile.TemporaryDirectory(dir=staging) as work:
            told = run_lmdeploy(python, Path(work), model, rows, device)
            write_architecture_tensors(ShardReader(Path(work) / "raw"), config, staging)
        copy_model_files(model, staging)
        _write_quantization_config(staging)
        proof = verify_awq(model, staging, tokenizer, prompts)
        bound = MAX_MEAN_KL if max_kl is None else max_kl
        if not proof.kl <= bound:
            raise ExportError(
                f"The AWQ weights are too far from the model: KL {proof.kl:.3g} nats, and at most "
                f"{bound:g} is let through. They were not kept; calibrate with more --samples."
            )
        written = AwqResult(out, proof, len(rows), len(rows[0]) if rows else 0, told)
        _build_awq_card(model, written).write(staging)
    return written


def check_awq_support(config: Any, model: Path) -> None:
    """ExportError for another architecture, weights that are quantized already, or odd sizes."""
    if getattr(config, "quantization_config", None):
        raise ExportError(f"{model} is stored quantized. Give the model that it was made from.")
    if config.model_type not in AWQ_ARCHITECTURES:
        raise ExportError(
            f"{model} is of type '{config.model_type}'; AWQ is written for "
            f"{', '.join(AWQ_ARCHITECTURES)}."
        )
    head = get_head_dim(config)
    inputs = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "the heads together": config.num_attention_heads * head,
    }
    for name, size in inputs.items():
        if size % AWQ_GROUP_SIZE:
            raise ExportError(
                f"{model}: {name} is {size}, no multiple of {AWQ_GROUP_SIZE}, so that its layers do not split "
                f"into groups of {AWQ_GROUP_SIZE} inputs. Write a GGUF: elysia quantize gguf {model}"
            )
    if head % VALUES_PER_WORD:
        raise ExportError(
            f"{model}: a head is {head} wide, no multiple of {VALUES_PER_WORD}, which a word packs."
        )


def get_head_dim(config: Any) -> int:
    """The width of one attention head."""
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def run_lmdeploy(python: Path, work: Path, model: Path, rows: list[list[int]], device: str) -> str:
    """Let LMDeploy quantize into work/raw; the device that it used.

    ExportError with its last words when it fails.
    """
    job = {
        "model": str(model.resolve()), "out": str(work / "raw"), "rows": rows, "device": device,
    }  # fmt: skip
    (work / "job.json").write_text(json.dumps(job))
    # Our package alone: what lies beside it may be this environment's torch.
    (work / "elysia").symlink_to(Path(elysia.__file__).resolve().parent)
    environment = os.environ | {"PYTHONPATH": str(work), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run(
        [str(python.absolute()), "-m", "elysia.export.lmdeploy_process", "job.json"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if found.returncode:
        said = [line for line in found.stderr.splitlines() if line.strip()]
        reason = said[-1].strip()[:300] if said else f"it ended with code {found.returncode}"
        raise ExportError(f"LMDeploy could not quantize {model}: {reason}")
    answer: dict[str, str] = json.loads(found.stdout.splitlines()[-1])
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
        found = [raw.spec(part) for part in parts]
        dtype = torch.float16 if found[0].dtype.is_floating_point else found[0].dtype
        shape = found[0].shape
        if len(found) > 1:
            outputs = sum(spec.shape[-1] for spec in found)
            shape = (*shape[:-1], outputs)
        specs.append(TensorSpec(name, dtype, shape))
    write_shards(folder, specs, produce, parse_size("2GB"))


def iter_tensor_sources(raw: ShardReader, config: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name to write, the names of what it is made of), three for a fused `wqkv`."""
    query = FUSED_QKV[1][0]
    for name in raw:
        if config.model_type != "internlm2":
            yield name, (name,)
        elif query in name:
            parts = tuple(name.replace(query, part) for part in FUSED_QKV[1])
            yield name.replace(query, FUSED_QKV[0]), parts
        elif not any(part in name for part in FUSED_QKV[1]):
            written = name
            for theirs, ours in KEY_RENAMES:
                written = written.replace(ours, theirs)
            yield written, (name,)


def fuse_packed_wqkv(name: str, parts: list[Tensor], config: Any) -> Tensor:
    """A part of query, key and value as that part of `wqkv`: their outputs, in its order.

    Outputs are the last dimension of a packed layer. A head's are whole words.
    """
    width = get_head_dim(config)
    if name.rpartition(".")[2] in ("qweight", "qzeros"):
        width //= VALUES_PER_WORD
    kv_heads = config.num_key_value_heads
    query, key, value = (part.movedim(-1, 0) for part in parts)
    return fuse_wqkv(query, key, value, kv_heads, width).movedim(0, -1).contiguous()


@torch.inference_mode()
def verify_awq(
    model: Path, quantized: Path, tokenizer: Any, prompts: tuple[str, ...] = ()
) -> AwqVerification:
    """Compare the two folders' distributions after every token of some texts, in float32."""
    texts = [text for text in prompts if text.strip()][:MAX_PROMPTS] or list(SAMPLE_TEXTS)
    rows = [
        tokenizer(text, add_special_tokens=False)["input_ids"][-MAX_PROMPT_TOKENS:]
        for text in texts
    ]
    wanted = _compute_log_probs(model, rows)
    found = _compute_log_probs(quantized, rows)
    apart = torch.cat(
        [(p.exp() * (p - q)).sum(-1).clamp(min=0) for p, q in zip(wanted, found, strict=True)]
    )
    return AwqVerification(float(apart.mean()), float(apart.max()), apart.numel())


def _compute_log_probs(folder: Path, rows: list[list[int]]) -> list[Tensor]:
    """Log-probabilities (tokens, vocabulary) of each row; one model is in memory at a time."""
    model = loading.load_causal_lm(folder, dtype="float32", device="cpu")
    logits = [model(input_ids=torch.tensor([row])).logits[0].float() for row in rows]
    return [one.log_softmax(-1) for one in logits]


def _write_quantization_config(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("auto_map", None)
    config["dtype"] = config["torch_dtype"] = "float16"
    config["quantization_config"] = AWQ_CONFIG
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _build_awq_card(model: Path, written: AwqResult) -> RunCard:
    card = RunCard.read(model) or RunCard(stage="quantized", base_model=str(model), method="full")
    how = {"rows": written.rows, "length": written.length, "device": written.device}
    quantization = {
        "format": "awq",
        "bits": AWQ_BITS,
        "group_size": AWQ_GROUP_SIZE,
        "calibration": how,
    }
    return card.updated(
        stage="quantized",
        versions=card.versions | {"elysia": elysia.__version__},
        metrics={f"awq_{name}": value for name, value in asdict(written.proof).items()},
        extra=card.extra | {"quantization": quantization},
    )


def _is_awq_export(folder: Path) -> bool:
    card = RunCard.read(folder)
    found = card.extra.get("quantization", {}) if card else {}
    return isinstance(found, dict) and found.get("format") == "awq"


MIN_CALIBRATION_TOKENS = 16  # tokens: fewer tell nothing of a layer's inputs
MIN_CONVERSATION_TOKENS = (
    4  # tokens that any conversation has: so many of them are more than enough
)


def build_calibration_rows(model: Path, tokenizer: Any, count: int, length: int) -> list[list[int]]:
    """At most `count` rows of `length` token ids (one shorter row when there is less).

    Whole conversations of the data that the run card names, in a fixed random order, one after
    another, cut where a row is full. Empty when no data is left; ExportError when what is left is
    less than LEAST tokens.
    """
    card = RunCard.read(model)
    samples = load_training_samples(card)
    if card is None or not samples or not card.template:
        return []
    random.Random(0).shuffle(samples)
    ids = tokenize_samples(
        samples[: count * length // MIN_CONVERSATION_TOKENS + 1],
        PromptTemplate.from_dict(card.template),
        tokenizer,
        system=card.system,
        max_length=2**31 - 1,
    ).ids.tolist()[: count * length]
    if len(ids) < MIN_CALIBRATION_TOKENS:
        raise ExportError(
            f"The data of {model}'s run card is {len(ids)} tokens long: too little to calibrate with."
        )
    length = min(length, len(ids))
    return [ids[at : at + length] for at in range(0, len(ids) - length + 1, length)]


def load_training_samples(card: RunCard | None) -> list[Sample]:
    """Every conversation of the data that the card names, of preference pairs the chosen one."""
    found: list[Sample] = []
    for source in card.datasets if card else []:
        try:
            found += load_chosen_conversations(resolve_bundled(source["path"]), source["format"])
        except DataError:
            continue  # moved since the training
    return found
