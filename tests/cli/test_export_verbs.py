"""`elysia convert ...` and `elysia prove`, on a tiny model with an adapter whose effect is plain."""

import json

import pytest
import torch

from elysia import cli


@pytest.fixture(scope="module")
def adapter(tiny_internlm2, tmp_path_factory):
    """A LoRA adapter folder as PEFT writes it, without a run card."""
    from peft import LoraConfig, get_peft_model

    from elysia.models.loading import load_causal_lm

    folder = tmp_path_factory.mktemp("convert") / "adapter"
    base = load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, target_modules=["o_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(base, config).save_pretrained(folder)
    return folder


def test_merge_then_prove_and_a_model_without_the_adapter_fails(
    tiny_internlm2, adapter, tmp_path, capsys
):
    base, merged = str(tiny_internlm2), str(tmp_path / "merged")
    assert cli.main(["convert", "merge", base, str(adapter), merged, "--device", "cpu"]) == 0
    assert "Merged" in capsys.readouterr().out

    output = tmp_path / "proof.json"
    prove = ["prove", base, str(adapter)]
    assert cli.main([*prove, merged, "--output", str(output)]) == 0
    assert "The adapter is in the merged model." in capsys.readouterr().out
    assert json.loads(output.read_text())["max_diff"] <= 1e-3

    assert cli.main([*prove, base, "--prompts", "你好", "hello"]) == 1
    assert "does not hold the adapter" in capsys.readouterr().err


def test_split_writes_a_model_that_loads(tiny_internlm2, tmp_path):
    pytest.importorskip("elysia.export.shards")
    from elysia.models.loading import load_causal_lm

    out = tmp_path / "split"
    assert cli.main(["convert", "split", str(tiny_internlm2), str(out)]) == 0
    whole = load_causal_lm(tiny_internlm2, dtype="float32", device="cpu").state_dict()
    parts = load_causal_lm(out, dtype="float32", device="cpu").state_dict()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_missing_checkpoint_is_one_sentence(tmp_path, capsys):
    words = ["convert", "pth_to_hf", "demo_base", str(tmp_path / "no.pth"), str(tmp_path / "out")]
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert "no.pth" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "merge", "a", "b", "c", "--is-clip"],
        ["convert", "pth_to_hf", "a", "b", "c", "--save-format", "official"],
    ],
)
def test_flags_for_other_kinds_of_models_get_a_sentence(words, capsys):
    assert cli.main(words) == 2
    assert "not supported here" in capsys.readouterr().err


def test_the_proofs_prompts_come_from_the_data_of_the_run_card(tmp_path):
    from elysia.cli.verify import get_training_prompts
    from elysia.core.run_card import RunCard
    from elysia.core.templates import get_template

    rows = [{"conversation": [{"input": f"q{n}", "output": "a"}]} for n in range(20)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    sources = [
        {"path": str(tmp_path / "rows.json"), "format": "xtuner"},
        {"path": str(tmp_path / "gone.json"), "format": "xtuner"},
    ]
    template = get_template("internlm2_chat").to_dict()
    card = RunCard(
        stage="adapter", base_model="b", template=template, system="SYS", datasets=sources
    )
    card.write(tmp_path)
    prompts = get_training_prompts(tmp_path, 4)
    assert len(prompts) == 4
    assert len(set(prompts)) == 4
    assert all("SYS" in text and "<|im_start|>user\nq" in text for text in prompts)
    assert get_training_prompts(tmp_path / "nowhere", 4)
