"""A GGUF says what its model says: weights, tokens, template, and the proof that would notice."""

import json

import pytest

pytest.importorskip("xllamacpp", reason="requirements/serve.lock is not installed")

import torch

from elysia.core.errors import ExportError, ModelError
from elysia.core.run_card import RunCard
from elysia.core.templates import get_template
from elysia.export import gguf_weights, gguf_writer, verify_gguf
from elysia.models import loading, tiny
from elysia.models.gguf.gguf_reader import read_gguf_header
from elysia.models.gguf.llama_server import LlamaServer


@pytest.fixture(scope="module")
def carded(tiny_internlm2):
    """The tiny InternLM2 with a run card beside it."""
    card = RunCard(
        stage="merged",
        base_model="base",
        template=get_template("internlm2_chat").to_dict(),
        stop_words=["<|im_end|>"],
        system="你是爱莉希雅。",
    )
    path = card.write(tiny_internlm2)
    yield tiny_internlm2
    path.unlink()


@pytest.mark.parametrize("file_type", ["f32", "f16"])
def test_internlm2_says_the_same_tokens_in_a_gguf(carded, tmp_path, file_type):
    proof = gguf_writer.quantize_gguf(carded, tmp_path / "m.gguf", file_type=file_type).verification
    assert proof.tokens >= 48
    assert proof.equal == proof.tokens or proof.ties
    assert proof.kl < 1e-5


def test_llama_says_the_same_tokens_in_a_gguf(tiny_llama, tmp_path):
    proof = gguf_writer.quantize_gguf(tiny_llama, tmp_path / "m.gguf", file_type="f32").verification
    assert proof.tokens >= 48
    assert proof.equal == proof.tokens or proof.ties


def test_qwen2_says_the_same_tokens_in_a_gguf(tiny_tokenizer, tmp_path):
    model = tiny.init_model(
        tmp_path / "qwen2", tokenizer=tiny_tokenizer, architecture="qwen2", hidden_size=64,
        layers=2, heads=4, kv_heads=2, intermediate_size=128,
    )  # fmt: skip
    written = gguf_writer.quantize_gguf(model, file_type="f32")
    assert written.path == tmp_path / "qwen2.f32.gguf"
    assert written.verification.equal == written.verification.tokens or written.verification.ties


def test_the_quantized_types_are_smaller_and_stay_near(carded, tmp_path):
    sizes = {}
    for file_type in ("f16", "q8_0", "q4_k_m"):
        written = gguf_writer.quantize_gguf(
            carded, tmp_path / f"{file_type}.gguf", file_type=file_type
        )
        sizes[file_type] = written.path.stat().st_size
        assert written.verification.kl < verify_gguf.MAX_MEAN_KL_OF_TYPE[file_type]
    assert sizes["q4_k_m"] < sizes["q8_0"] < sizes["f16"]


def test_template_stop_word_and_card_travel_in_the_file(carded, tmp_path):
    path = gguf_writer.quantize_gguf(carded, tmp_path / "m.gguf", file_type="f16").path
    header = read_gguf_header(path)
    tokenizer = loading.load_tokenizer(carded)
    assert "<|im_start|>user" in header["tokenizer.chat_template"]
    assert header["tokenizer.ggml.eot_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    inside = RunCard.from_dict(json.loads(header[gguf_writer.CARD_KEY]))
    beside = RunCard.from_dict(
        json.loads(gguf_writer.get_card_path(path).read_text(encoding="utf-8"))
    )
    assert inside.system == beside.system == "你是爱莉希雅。"
    assert beside.stage == "quantized"
    assert beside.metrics["gguf_equal"] == beside.metrics["gguf_tokens"]


def test_rows_in_the_wrong_order_do_not_pass_the_proof(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_weights, "interleave_heads", lambda tensor, heads: tensor)
    with pytest.raises(ExportError, match=r"does not say what the model says|too far"):
        gguf_writer.quantize_gguf(tiny_llama, tmp_path / "m.gguf", file_type="f16")
    assert list(tmp_path.iterdir()) == []


def test_a_bound_that_is_passed_leaves_nothing(tiny_llama, tmp_path):
    with pytest.raises(ExportError, match="is accepted"):
        gguf_writer.quantize_gguf(tiny_llama, tmp_path / "m.gguf", file_type="q4_k_m", max_kl=1e-9)
    assert list(tmp_path.iterdir()) == []


def test_dynamic_ntk_beyond_the_trained_length_is_transformers_at_that_length(
    tiny_internlm2, tmp_path
):
    folder = tmp_path / "ntk"
    folder.mkdir()
    for file in tiny_internlm2.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 96
    config["rope_parameters"] = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 10000.0}
    config["rope_scaling"] = {"type": "dynamic", "factor": 3.0}
    (folder / "config.json").write_text(json.dumps(config))
    path = gguf_writer.quantize_gguf(folder, file_type="f32", context=256).path
    ids = [7 + (11 * i) % 900 for i in range(256)]
    model = loading.load_causal_lm(folder, dtype="float32", device="cpu")
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -2]  # of a call of 256
    server = LlamaServer(path, context=256, cache="f32")
    try:
        apart = verify_gguf.estimate_kl(logits, server, ids[:-1])
    finally:
        server.close()
    plain = read_gguf_header(path)["llama.rope.freq_base"]
    assert plain == pytest.approx(10000.0 * (3 * 256 / 96 - 2) ** (16 / 14), rel=1e-5)
    assert apart is None or abs(apart) < 1e-6


def test_a_model_that_a_gguf_cannot_hold_is_refused(tiny_llama, tmp_path):
    with pytest.raises(ExportError, match=r"does not\s+stretch"):
        gguf_writer.quantize_gguf(tiny_llama, tmp_path / "m.gguf", file_type="f16", context=10**6)
    with pytest.raises(ExportError, match="no type 'q3'"):
        gguf_writer.quantize_gguf(tiny_llama, tmp_path / "m.gguf", file_type="q3")


def test_a_truncated_file_is_a_sentence(carded, tmp_path):
    whole = gguf_writer.quantize_gguf(
        carded, tmp_path / "m.gguf", file_type="f16"
    ).path.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        LlamaServer(cut, context=64)
    cut.write_bytes(whole[:2000])
    with pytest.raises(ModelError, match="cut short"):
        read_gguf_header(cut)
    cut.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="no GGUF"):
        read_gguf_header(cut)


@pytest.mark.slow
def test_a_thousand_real_lines_get_the_same_ids_with_the_real_vocabulary(shared_data, tmp_path):
    source = tmp_path / "tokenizer"
    source.mkdir()
    model_file = shared_data / "tokenizers" / "internlm2_tokenizer.model"
    (source / "tokenizer.model").write_bytes(model_file.read_bytes())
    folder = tiny.init_model(
        tmp_path / "real", tokenizer=source, hidden_size=32, layers=1, heads=2,
        intermediate_size=64,
    )  # fmt: skip
    written = gguf_writer.quantize_gguf(folder, file_type="f16")
    assert written.verification.equal == written.verification.tokens or written.verification.ties
    tokenizer = loading.load_tokenizer(folder)
    server = LlamaServer(written.path, context=64)
    try:
        for text in real_lines(shared_data):
            for special in (True, False):
                expected = tokenizer(
                    text, add_special_tokens=False, split_special_tokens=not special
                )["input_ids"]
                body = {"content": text, "add_special": False, "parse_special": special}
                assert server.post("/tokenize", body)["tokens"] == expected, text
    finally:
        server.close()


def real_lines(shared):
    """A thousand lines: English, Chinese, text with line breaks, emoji, special tokens as text."""
    corpus = shared / "corpus"
    lines = []
    for name in (
        "commonvoice_sentences_en.txt",
        "commonvoice_wiki_zh-cn.txt",
        "zh_modern_niutrans.txt",
    ):
        text = (corpus / name).read_text(encoding="utf-8")
        lines += [line for line in text.splitlines() if line.strip()][:300]
    marks = " 🌸😊👩‍👩‍👧 <|im_end|> <s> [UNUSED_TOKEN_145]\n\n好"
    return lines + [line + marks for line in lines[:900:9]]
