"""prove: passes for a true merge, fails for every way in which the adapter can be lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from elysia.core.errors import ExportError
from elysia.core.run_card import RunCard
from elysia.export.merge import merge_adapter
from elysia.export.verify_merge import verify_merge

PROMPTS = ["<|im_start|>user\n你是谁？<|im_end|>\n<|im_start|>assistant\n", "你好", "What is this?"]


@pytest.mark.parametrize("base_name", ["tiny_internlm2", "tiny_llama"])
def test_a_merge_in_float32_is_proved_and_the_card_says_so(
    base_name: str, adapter_of: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(base_name)
    adapter, out = adapter_of(base), tmp_path / "merged"
    merge_adapter(base, adapter, out, device="cpu")
    proof = verify_merge(base, adapter, out, PROMPTS, device="cpu")
    assert proof.max_diff < 1e-4 and proof.kl < 1e-6
    assert proof.effect > 0.1 and proof.follow == pytest.approx(1, abs=1e-3)
    card = RunCard.read(out)
    assert card is not None
    assert card.metrics["merge_max_diff"] == proof.max_diff
    assert card.metrics["merge_kl"] == proof.kl and card.metrics["adapter_effect"] == proof.effect


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merge_onto_the_trained_weights_is_proved_against_the_quantized_base(
    dtype: str, adapter_of: Any, tiny_internlm2: Path, tmp_path: Path
) -> None:
    adapter, out = adapter_of(tiny_internlm2, method="qlora", dtype=dtype), tmp_path / "merged"
    merge_adapter(tiny_internlm2, adapter, out, device="cpu", base_weights="as-trained")
    assert verify_merge(tiny_internlm2, adapter, out, PROMPTS, device="cpu").max_diff < 1e-4


@pytest.mark.parametrize(
    "kind", [{"use_dora": True}, {"use_dora": True, "use_rslora": True}], ids=str
)
@pytest.mark.parametrize(
    ("method", "choice"), [("lora", "original"), ("qlora", "original"), ("qlora", "as-trained")]
)
def test_dora_and_rslora_are_proved_on_a_plain_and_on_an_nf4_base(
    kind: dict[str, Any],
    method: str,
    choice: Any,
    adapter_of: Any,
    tiny_internlm2: Path,
    tmp_path: Path,
) -> None:
    adapter, out = adapter_of(tiny_internlm2, method=method, **kind), tmp_path / "merged"
    merge_adapter(tiny_internlm2, adapter, out, device="cpu", base_weights=choice)
    proof = verify_merge(tiny_internlm2, adapter, out, PROMPTS, device="cpu")
    assert proof.max_diff < 1e-4 and proof.effect > 0.1


def test_dora_without_its_magnitudes_is_refused(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter = adapter_of(tiny_llama, use_dora=True)
    path = adapter / "adapter_model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if "magnitude" not in n}, path)
    with pytest.raises(ExportError, match=r"has no .*magnitude_vector of 64 numbers"):
        merge_adapter(tiny_llama, adapter, tmp_path / "merged", device="cpu")


def test_sixteen_bits_are_proved_within_their_rounding(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter, out = adapter_of(tiny_llama), tmp_path / "merged"
    merge_adapter(tiny_llama, adapter, out, device="cpu", dtype="bfloat16")
    proof = verify_merge(tiny_llama, adapter, out, PROMPTS, device="cpu")
    assert 1e-3 < proof.max_diff < proof.effect / 2


def _tampered(out: Path, change: Any, base: Path) -> None:
    """Replace each merged weight by change(base weight, merged weight)."""
    before = load_file(base / "model.safetensors")
    merged = load_file(out / "model.safetensors")
    weights = {name: change(before[name], merged[name]).contiguous() for name in merged}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda base, merged: base, "does not hold the adapter"),
        # Logits do not double with the delta: which of the two sentences it gets is the weights' matter.
        (lambda base, merged: base + 2 * (merged - base), "does not (follow|hold)"),
        (lambda base, merged: base - (merged - base), "does not hold the adapter"),
        (lambda base, merged: merged + 0.001 * torch.randn_like(merged), "does not follow"),
        (lambda base, merged: merged * float("nan"), "not finite"),
    ],
    ids=["absent", "twice", "negative", "noise", "broken"],
)
def test_a_merge_that_went_wrong_is_found(
    change: Any, sentence: str, adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter, out = adapter_of(tiny_llama), tmp_path / "merged"
    merge_adapter(tiny_llama, adapter, out, device="cpu")
    _tampered(out, change, tiny_llama)
    with pytest.raises(ExportError, match=sentence):
        verify_merge(tiny_llama, adapter, out, PROMPTS, device="cpu")
    card = RunCard.read(out)
    assert card is not None and "merge_max_diff" not in card.metrics


def test_a_merge_onto_the_other_choice_of_base_is_found(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter, out = adapter_of(tiny_llama, method="qlora"), tmp_path / "merged"
    merge_adapter(tiny_llama, adapter, out, device="cpu")
    report = out / "merge.json"
    report.write_text(json.dumps(json.loads(report.read_text()) | {"base_weights": "as-trained"}))
    with pytest.raises(ExportError, match="does not"):
        verify_merge(tiny_llama, adapter, out, PROMPTS, device="cpu")


def test_an_adapter_that_learned_nothing_is_found(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter, out = adapter_of(tiny_llama), tmp_path / "merged"
    path = adapter / "adapter_model.safetensors"
    weights = {n: t * ("lora_A" in n) for n, t in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    merge_adapter(tiny_llama, adapter, out, device="cpu")
    with pytest.raises(ExportError, match="nothing to merge"):
        verify_merge(tiny_llama, adapter, out, PROMPTS, device="cpu")


def test_another_base_and_no_prompts_are_refused(
    adapter_of: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    adapter, out = adapter_of(tiny_llama), tmp_path / "merged"
    merge_adapter(tiny_llama, adapter, out, device="cpu")
    with pytest.raises(ExportError, match="at least one prompt"):
        verify_merge(tiny_llama, adapter, out, [""], device="cpu")
    other = tmp_path / "other"
    shutil.copytree(tiny_llama, other)
    _tampered(other, lambda base, _: base + 0.1, tiny_llama)
    with pytest.raises(ExportError, match="not those"):
        verify_merge(other, adapter, out, PROMPTS, device="cpu")
