import json
from pathlib import Path
from typing import Any

import pytest
import torch

from elysia.core.errors import DataError, ModelError
from elysia.models import loading, tiny

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 1,
    "heads": 2,
    "kv_heads": 1,
    "intermediate_size": 64,
}


def test_text_comes_back_whole(tiny_tokenizer: Path) -> None:
    words = loading.load_tokenizer(tiny_tokenizer)
    for text in ("你好，爱莉希雅！", "Hello  there\n\tyou", "👩‍👩‍👧🥰 \x00\x7f", "𠮷 é ﷽", " a "):
        ids = words(text)["input_ids"]
        assert words.decode(ids) == text
        assert ids == words(text, add_special_tokens=False)["input_ids"]


def test_chat_tokens_are_one_piece_each_and_leave_the_text_clean(tiny_tokenizer: Path) -> None:
    words = loading.load_tokenizer(tiny_tokenizer)
    assert words.convert_tokens_to_ids(list(tiny.SPECIAL_TOKENS)) == list(range(9))
    assert (words.pad_token_id, words.bos_token_id, words.eos_token_id) == (0, 1, 2)
    ids = words("<|im_start|>user\n你好<|im_end|>\n</s>")["input_ids"]
    assert [i for i in ids if i < 9] == [3, 4, 2]
    assert words.decode(ids, skip_special_tokens=True) == "user\n你好\n"
    assert not {3, 4} & set(words("<|im_end|>", split_special_tokens=True)["input_ids"])


def test_the_vocabulary_has_the_size_asked_for_and_learns_the_text(tiny_tokenizer: Path) -> None:
    words = loading.load_tokenizer(tiny_tokenizer)
    assert len(words) == 1000
    assert len(words("你叫什么名字？")["input_ids"]) < len("你叫什么名字？".encode()) / 2


def test_the_same_files_give_the_same_tokenizer(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("春眠不觉晓，处处闻啼鸟。\nthe cat sat on the mat\n" * 5, encoding="utf-8")
    first, second = (tiny.train_tokenizer([file], 400, tmp_path / n) for n in ("one", "two"))
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()


def test_too_little_text_for_the_vocabulary_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("ab ab ab", encoding="utf-8")
    tiny.train_tokenizer([tmp_path / "a.txt"], 5000, tmp_path / "out")
    assert "of the requested 5000 tokens" in caplog.text


ROWS = [
    {"conversation": [{"system": "s", "input": "甲", "output": "乙"}], "n": 3},
    {"conversation": []},
]


def test_json_jsonl_and_txt_give_every_text_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS), encoding="utf-8-sig")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    (tmp_path / "a.txt").write_text("s\n\n甲\n乙\n", encoding="utf-8")
    for name in ("a.json", "a.jsonl", "b.jsonl", "a.txt"):
        assert list(tiny.read_texts(tmp_path / name)) == ["s", "甲", "乙"], name


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"[{]", r"a\.json, line 1, column \d+: not JSON"),
        ("a.jsonl", b'{"a": "b"}\n{"a"\n', r"a\.jsonl, line 2, column"),
        ("a.json", b"[1, 2, null]", "holds no text"),
        ("a.json", b"", "holds no text"),
        ("a.txt", b"\n \n", "holds no text"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.csv", b"a,b", r"none of \.json"),
    ],
)
def test_bad_input_is_refused_with_file_and_place(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        tiny.train_tokenizer([tmp_path / name], 400, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_files_and_impossible_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        tiny.train_tokenizer([tmp_path / "no.txt"], 400, tmp_path / "out")
    with pytest.raises(DataError, match="No files"):
        tiny.train_tokenizer([], 400, tmp_path / "out")
    with pytest.raises(ModelError, match="Set vocab_size to 265"):
        tiny.train_tokenizer([tmp_path / "no.txt"], 264, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_each_architecture_is_made_saved_and_runs(
    tiny_tokenizer: Path, tmp_path: Path, architecture: str, tied: bool
) -> None:
    folder = tiny.init_model(
        tmp_path / "m",
        tokenizer=tiny_tokenizer,
        architecture=architecture,
        tie_word_embeddings=tied,
        **SIZES,
    )
    model = loading.load_causal_lm(folder, dtype="float32", device="cpu")
    assert model.config.model_type == architecture
    assert model.config.vocab_size == 1000
    assert model.generation_config.eos_token_id == [2, 4]
    ids = torch.tensor([loading.load_tokenizer(folder)("你好")["input_ids"]])
    logits = model(ids).logits
    assert logits.shape == (1, ids.shape[1], 1000)
    assert 0 < logits.abs().max() < 5


def test_the_seed_decides_the_weights_and_nothing_outside(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    folders = [
        tiny.init_model(tmp_path / str(n), tokenizer=tiny_tokenizer, seed=seed, **SIZES)
        for n, seed in enumerate((1, 1, 2))
    ]
    assert torch.equal(torch.rand(3), expected)
    digest, same, other = (loading.compute_fingerprint(folder)["sha256"] for folder in folders)
    assert digest == same != other


def test_the_dtype_is_what_was_asked_for(tiny_tokenizer: Path, tmp_path: Path) -> None:
    folder = tiny.init_model(tmp_path / "m", tokenizer=tiny_tokenizer, dtype="bfloat16", **SIZES)
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "internlm"}, "Did you mean 'internlm2'"),
        ({"heads": 3}, "does not split into 3 heads"),
        ({"heads": 32, "kv_heads": 1}, "even width"),
        ({"heads": 4, "kv_heads": 3}, "4 heads do not split into 3 groups"),
        ({"layers": 0}, "at least 1"),
        ({"dtype": "fp64"}, "Unknown dtype"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    tiny_tokenizer: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        tiny.init_model(tmp_path / "m", tokenizer=tiny_tokenizer, **{**SIZES, **change})
    assert not (tmp_path / "m").exists()


def test_an_occupied_folder_is_left_alone_unless_told(tiny_tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ModelError, match="already exists and is not empty"):
        tiny.init_model(tmp_path, tokenizer=tiny_tokenizer, **SIZES)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
    tiny.init_model(tmp_path, tokenizer=tiny_tokenizer, overwrite=True, **SIZES)
    assert (tmp_path / "model.safetensors").is_file()
    assert (tmp_path / "precious.txt").is_file()


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_model_s_tokenizer_is_the_one_that_was_given(
    tiny_tokenizer: Path, tmp_path: Path, architecture: str
) -> None:
    folder = tiny.init_model(
        tmp_path / "m", tokenizer=tiny_tokenizer, architecture=architecture, **SIZES
    )
    original, loaded = loading.load_tokenizer(tiny_tokenizer), loading.load_tokenizer(folder)
    assert len(loaded) == len(original) == loading.load_config(folder).vocab_size
    # Qwen2's own would compose these, and cut digits one by one.
    text = "cafe\u0301 12345 don't"
    assert loaded(text)["input_ids"] == original(text)["input_ids"]
