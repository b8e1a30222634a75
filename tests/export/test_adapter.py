"""pth_to_hf: adapters without the base, whole models with their own keys, sentences for bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from elysia.core.errors import CheckpointError, ElysiaError, ExportError
from elysia.core.run_card import RunCard
from elysia.export.adapter import ADAPTER_WEIGHTS, find_checkpoint, pth_to_hf
from elysia.models.loading import load_causal_lm
from elysia.train.config.settings import load_settings

SmallDisk = Callable[[int], AbstractContextManager[None]]

IDS = torch.tensor([[5, 300, 41, 7, 12, 260, 99]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=IDS).logits
    return logits


def _trained_logits(base: Path, settings: Any, pth: Path) -> torch.Tensor:
    """Of the model as it stood at the end of training."""
    from elysia.models.adapters import add_lora
    from elysia.train.checkpoint import load_weights

    model = add_lora(
        load_causal_lm(base, dtype="float32", device="cpu"),
        r=settings.lora_r,
        alpha=settings.lora_alpha,
        targets=settings.lora_target_modules,
        dora=settings.use_dora,
        rslora=settings.use_rslora,
    )
    model.load_state_dict(load_weights(pth), strict=False)
    return logits(model.eval())


@pytest.mark.parametrize("base_name", ["tiny_internlm2", "tiny_llama"])
@pytest.mark.parametrize("kind", [{}, {"use_dora": True}, {"use_rslora": True}], ids=str)
def test_peft_loads_the_adapter_to_the_logits_of_training(
    base_name: str,
    kind: dict[str, Any],
    trained: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    from peft import PeftModel

    base = request.getfixturevalue(base_name)
    settings, pth = trained(base, **kind)
    out = pth_to_hf(settings, pth, tmp_path / "hf")
    plain = load_causal_lm(base, dtype="float32", device="cpu")
    without = logits(plain)
    loaded = logits(PeftModel.from_pretrained(plain, str(out)).eval())
    assert torch.equal(loaded, _trained_logits(base, settings, pth))
    assert (loaded - without).abs().max() > 0.01


def test_an_adapter_is_made_without_the_base(
    trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    base = tmp_path / "gone"
    shutil.copytree(tiny_llama, base)
    settings, pth = trained(base)
    shutil.rmtree(base)
    out = pth_to_hf(settings, pth, tmp_path / "hf")
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8, "CAUSAL_LM")
    assert config["inference_mode"] is True
    names = load_file(out / "adapter_model.safetensors").keys()
    assert all(name.startswith("base_model.model.model.layers.") for name in names)
    assert not any(".default" in name for name in names)


def test_the_run_card_and_model_card_travel_with_the_adapter(
    trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    settings, pth = trained(tiny_llama)
    out = pth_to_hf(settings, pth, tmp_path / "hf")
    card = RunCard.read(out)
    assert card is not None
    assert (card.stage, card.system) == ("adapter", "你是爱莉希雅。")
    assert card.template["name"] == "internlm2_chat"
    assert card.extra["training"]["dtype"] == "float32"
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\n")
    front = readme.split("---")[1]
    assert "library_name: peft" in front and "- zh" in front and "- lora" in front
    assert "license:" in front and "# license" in front  # a comment until someone chooses
    assert "<|im_end|>" in readme


def test_the_config_is_kept_and_can_be_loaded(
    trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    settings, pth = trained(tiny_llama)
    out = pth_to_hf(settings, pth, tmp_path / "hf")
    assert load_settings(out / "xtuner_config.py").sha256() == settings.sha256()


def test_a_deepspeed_folder_gives_the_same_adapter(
    trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    from elysia.train.checkpoint import load_run_card, load_weights

    settings, pth = trained(tiny_llama)
    folder = tmp_path / "iter_9.pth"
    folder.mkdir()
    save_file({f"llm.{n}": w for n, w in load_weights(pth).items()}, folder / "weights.safetensors")
    load_run_card(pth).write(folder)
    single = load_file(pth_to_hf(settings, pth, tmp_path / "one") / "adapter_model.safetensors")
    two = load_file(pth_to_hf(settings, folder, tmp_path / "two") / "adapter_model.safetensors")
    assert single.keys() == two.keys() and all(torch.equal(single[n], two[n]) for n in single)


def test_a_work_dir_means_its_last_checkpoint(
    trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    settings, pth = trained(tiny_llama)
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(pth, work / "iter_20.pth")
    (work / "iter_3.pth").write_bytes(b"not this one")
    assert pth_to_hf(settings, work, tmp_path / "hf").is_dir()


@pytest.mark.parametrize(("fp32", "dtype"), [(False, torch.bfloat16), (True, torch.float32)])
def test_weights_are_in_the_training_dtype_unless_fp32_is_asked(
    fp32: bool, dtype: torch.dtype, trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    settings, pth = trained(tiny_llama, dtype="bfloat16")
    out = pth_to_hf(settings, pth, tmp_path / "hf", fp32=fp32)
    assert {t.dtype for t in load_file(out / "adapter_model.safetensors").values()} == {dtype}


@pytest.mark.parametrize("tied", [False, True])
def test_a_fully_tuned_model_gets_its_own_keys_and_the_trained_weights(
    lab: Any, tied: bool, tiny_internlm2: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_internlm2, base)
    if tied:
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
        whole = load_file(base / "model.safetensors")
        del whole["output.weight"]
        save_file(whole, base / "model.safetensors", metadata={"format": "pt"})
    model = load_causal_lm(base, dtype="float32", device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert ("lm_head.weight" in weights) != tied
    settings = lab.settings_for(base, method="full")
    pth = lab.save_checkpoint(tmp_path / "iter_1.pth", weights, lab.card_for(settings, base))
    out = pth_to_hf(settings, pth, tmp_path / "hf", max_shard_size="100KB")
    assert torch.equal(
        logits(load_causal_lm(out, dtype="float32", device="cpu")), logits(model.eval())
    )
    names = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    assert "model.layers.0.attention.wqkv.weight" in names
    assert (out / "tokenizer.json").is_file()
    card = RunCard.read(out)
    assert card is not None and card.method == "full" and card.stage == "merged"


def _refused(kind: type[Exception], *words: str, settings: Any, pth: Path, out: Path) -> None:
    with pytest.raises(kind) as caught:
        pth_to_hf(settings, pth, out)
    for word in words:
        assert word in str(caught.value)
    assert not out.exists()
    assert not list(out.parent.glob(".*writing*"))


def test_a_truncated_checkpoint_is_refused_with_a_sentence(
    trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    settings, pth = trained(tiny_llama)
    pth.write_bytes(pth.read_bytes()[:-500])
    _refused(CheckpointError, str(pth), settings=settings, pth=pth, out=tmp_path / "hf")


def test_a_missing_checkpoint_is_refused(lab: Any, tiny_llama: Path, tmp_path: Path) -> None:
    pth = tmp_path / "iter_1.pth"
    _refused(
        CheckpointError,
        str(pth),
        settings=lab.settings_for(tiny_llama),
        pth=pth,
        out=tmp_path / "hf",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_r": 8}, ["rank 4", "lora_r = 8"]),
        ({"lora_target_modules": ["q_proj", "v_proj"]}, ["another config"]),
        ({"method": "full"}, ["adapter", "method = 'full'"]),
    ],
)
def test_a_checkpoint_of_another_config_is_refused(
    lab: Any,
    changes: dict[str, Any],
    words: list[str],
    trained: Any,
    tiny_llama: Path,
    tmp_path: Path,
) -> None:
    _, pth = trained(tiny_llama)
    other = lab.settings_for(tiny_llama, **changes)
    _refused(CheckpointError, *words, settings=other, pth=pth, out=tmp_path / "hf")


def test_a_checkpoint_of_another_base_is_refused(
    lab: Any, trained: Any, tiny_llama: Path, tiny_internlm2: Path, tmp_path: Path
) -> None:
    _, pth = trained(tiny_llama)
    other = lab.settings_for(tiny_internlm2)
    words = [str(tiny_llama), str(tiny_internlm2)]
    _refused(CheckpointError, *words, settings=other, pth=pth, out=tmp_path / "hf")


def test_half_an_adapter_is_refused(trained: Any, tiny_llama: Path, tmp_path: Path) -> None:
    settings, pth = trained(tiny_llama)
    payload = torch.load(pth, weights_only=True)
    gone = next(name for name in payload["state_dict"] if "lora_B" in name)
    del payload["state_dict"][gone]
    torch.save(payload, pth)
    _refused(CheckpointError, "other half", settings=settings, pth=pth, out=tmp_path / "hf")


def test_whole_weights_of_another_size_are_refused(
    lab: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    model = load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    weights = {n: p.detach()[..., :-1].clone() for n, p in model.named_parameters()}
    settings = lab.settings_for(tiny_llama, method="full")
    pth = lab.save_checkpoint(tmp_path / "iter_1.pth", weights, lab.card_for(settings, tiny_llama))
    _refused(CheckpointError, "does not fit", settings=settings, pth=pth, out=tmp_path / "hf")
    del weights["model.norm.weight"]
    weights = {n: p.detach() for n, p in model.named_parameters() if n != "model.norm.weight"}
    pth = lab.save_checkpoint(tmp_path / "iter_2.pth", weights, lab.card_for(settings, tiny_llama))
    _refused(CheckpointError, "model.norm.weight", settings=settings, pth=pth, out=tmp_path / "h2")


def test_a_folder_of_something_else_is_not_replaced(
    trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    settings, pth = trained(tiny_llama)
    out = tmp_path / "hf"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    with pytest.raises(ExportError, match="not empty"):
        pth_to_hf(settings, pth, out)
    assert (out / "diary.txt").read_text() == "mine"


def test_converting_again_replaces_the_adapter(
    trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    settings, pth = trained(tiny_llama)
    out = pth_to_hf(settings, pth, tmp_path / "hf")
    (out / "left").write_text("over")
    assert not (pth_to_hf(settings, pth, out) / "left").exists()


def test_xtuners_own_checkpoint_gets_a_card_from_the_config(
    lab: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    settings = lab.settings_for(tiny_llama)
    pth = lab.save_checkpoint(tmp_path / "iter_1.pth", lab.lora_weights(tiny_llama, settings), None)
    card = RunCard.read(pth_to_hf(settings, pth, tmp_path / "hf"))
    assert card is not None and card.base_weights["sha256"]


def test_a_base_replaced_on_the_command_line_is_the_one_that_counts(
    lab: Any, trained: Any, tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, pth = trained(tiny_llama)
    settings = lab.settings_for(Path("someone/a-model"))
    out = pth_to_hf(settings, pth, tmp_path / "hf")
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_llama)
    assert "someone/a-model" in caplog.text


def test_the_alpha_that_trained_is_kept_whatever_the_config_says(
    lab: Any, tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = lab.settings_for(tiny_llama)
    card = lab.card_for(settings, tiny_llama).updated(extra={"training": {"lora_alpha": 32}})
    weights = lab.lora_weights(tiny_llama, settings)
    pth = lab.save_checkpoint(tmp_path / "iter_1.pth", weights, card)
    out = pth_to_hf(settings, pth, tmp_path / "hf")
    assert json.loads((out / "adapter_config.json").read_text())["lora_alpha"] == 32
    assert "lora_alpha" in caplog.text


def test_a_full_disk_leaves_no_adapter(
    trained: Any, tiny_llama: Path, tmp_path: Path, small_disk: SmallDisk
) -> None:
    settings, pth = trained(tiny_llama)
    with small_disk(20_000):
        _refused(ExportError, "disk is full", settings=settings, pth=pth, out=tmp_path / "hf")


def test_a_full_disk_leaves_no_model(
    lab: Any, tiny_llama: Path, tmp_path: Path, small_disk: SmallDisk
) -> None:
    model = load_causal_lm(tiny_llama, dtype="float32", device="cpu")
    weights = {n: p.detach() for n, p in model.named_parameters()}
    settings = lab.settings_for(tiny_llama, method="full")
    card = lab.card_for(settings, tiny_llama)
    pth = lab.save_checkpoint(tmp_path / "iter_1.pth", weights, card)
    with small_disk(20_000):
        _refused(ElysiaError, settings=settings, pth=pth, out=tmp_path / "hf")


def test_magnitudes_keep_float32_beside_a_16_bit_adapter(
    trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    settings, pth = trained(tiny_llama, dtype="bfloat16", use_dora=True)
    out = pth_to_hf(settings, pth, tmp_path / "hf")
    dtypes = {
        n.rpartition(".lora_")[2]: t.dtype for n, t in load_file(out / ADAPTER_WEIGHTS).items()
    }
    assert dtypes["magnitude_vector"] == torch.float32 and dtypes["A.weight"] == torch.bfloat16


def test_a_checkpoint_of_dora_is_refused_by_a_config_without_it_and_the_other_way_round(
    lab: Any, trained: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    _, with_dora = trained(tiny_llama, use_dora=True)
    with pytest.raises(CheckpointError, match="holds DoRA, but the config says use_dora = False"):
        pth_to_hf(lab.settings_for(tiny_llama), with_dora, tmp_path / "a")
    _, without = trained(tiny_llama)
    with pytest.raises(CheckpointError, match="LoRA without DoRA"):
        pth_to_hf(lab.settings_for(tiny_llama, use_dora=True), without, tmp_path / "b")


def test_the_scaling_of_the_training_is_kept_whatever_the_config_says(
    lab: Any, tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = lab.settings_for(tiny_llama, use_rslora=True)
    card = lab.card_for(settings, tiny_llama)
    card.extra["training"] = {"lora_alpha": 8, "use_rslora": True}
    pth = lab.save_checkpoint(tmp_path / "i.pth", lab.lora_weights(tiny_llama, settings), card)
    out = pth_to_hf(lab.settings_for(tiny_llama), pth, tmp_path / "hf")
    assert json.loads((out / "adapter_config.json").read_text())["use_rslora"] is True
    assert "trained with use_rslora = True" in caplog.text


def test_a_checkpoint_is_found_by_xtuners_count_and_a_missing_one_names_its_neighbours(
    tmp_path, caplog
):
    for step in (100, 48):
        (tmp_path / f"iter_{step}.pth").touch()
    assert find_checkpoint(tmp_path / "iter_48.pth", 16).name == "iter_48.pth"
    assert not caplog.records
    assert find_checkpoint(tmp_path / "iter_768.pth", 16).name == "iter_48.pth"
    assert "iter_768.pth is not there" in caplog.text
    for name, accumulation in (("iter_769.pth", 16), ("iter_768.pth", 8), ("iter_96.pth", 1)):
        with pytest.raises(CheckpointError, match=r"iter_48.pth.*iter_100.pth"):
            find_checkpoint(tmp_path / name, accumulation)
