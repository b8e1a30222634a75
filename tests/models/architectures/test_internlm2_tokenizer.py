import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

from elysia.core.errors import ModelError
from elysia.models import loading
from elysia.models.architectures import internlm2_tokenizer


@pytest.fixture(scope="module")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as upstream publishes it, less its remote code."""
    folder = tmp_path_factory.mktemp("internlm2")
    shutil.copy(
        shared_data / "tokenizers" / "internlm2_tokenizer.model", folder / "tokenizer.model"
    )
    config = {
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.T", None]},
        "tokenizer_class": "T",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "internlm2"}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def fast(folder: Path) -> Any:
    return loading.load_tokenizer(folder)


@pytest.fixture(scope="module")
def spm(folder: Path) -> Any:
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def agree(fast: Any, spm: Any, texts: list[str]) -> None:
    id_lists = fast(texts, add_special_tokens=False)["input_ids"]
    for text, ids, expected in zip(texts, id_lists, spm.encode(texts), strict=True):
        assert ids == expected, repr(text)
        assert fast.decode(ids) == spm.decode(expected), repr(text)


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("corpus/zh_modern_niutrans.txt", 200),
        ("corpus/commonvoice_wiki_zh-cn.txt", 3000),
        ("corpus/commonvoice_sentences_en.txt", 3000),
        ("persona/emollm_aiwei.json", 3000),
        ("instruct/oasst_en_100_tree.jsonl", 20),
    ],
)
def test_ids_and_text_equal_sentencepieces_on_real_text(
    fast: Any, spm: Any, shared_data: Path, file: str, lines: int
) -> None:
    texts = (shared_data / file).read_text(encoding="utf-8").split("\n")[:lines]
    agree(fast, spm, texts)


ODD = [
    "",
    " ",
    "   a  b ",
    "\n\n\r\n\t\t",
    "\x00",
    "a\x00\x01\x02\x7fb",
    "\u3000全角　空格\u00a0nbsp\u200b\ufeff",
    "👩‍👩‍👧 🥰🌸✨ 🇨🇳",
    "𠮷野家 𓀀 \U0010ffff",
    "e\u0301 é ａｂｃＥＦＧ——……———",
    "▁a ▁▁",
    "<0x41> [UNUSED_TOKEN_3]",
    "12345678901234567890",
    "هذا نص עברית ไทย",
    "def f(x):\n    return {'a': [1, 2.5e-3]}\n",
]


def test_ids_and_text_equal_sentencepieces_on_odd_text(fast: Any, spm: Any) -> None:
    agree(fast, spm, ODD)


def test_ids_and_text_equal_sentencepieces_on_random_text(
    fast: Any, spm: Any, folder: Path
) -> None:
    rng = random.Random(0)
    pieces = [
        p.piece.replace("▁", " ")
        for p in internlm2_tokenizer.read_sentencepiece(folder / "tokenizer.model").pieces
    ]
    pieces = pieces[260:92000]
    marks = [" ", "\n", "\t", "a", "=", "-", "*", ".", "0", "的", "—", "…", "！"]
    texts = ["".join(rng.choice(pieces) for _ in range(12)) for _ in range(2000)]
    texts += ["".join(rng.choice(pieces[60000:]) for _ in range(12)) for _ in range(1000)]
    texts += [
        "".join(rng.choice(marks) * rng.randint(1, 9) for _ in range(12)) for _ in range(1000)
    ]
    texts += [mark * n for mark in marks for n in range(1, 40)]
    texts += ["".join(_characters(rng, 20)) for _ in range(500)]
    agree(fast, spm, texts)


def _characters(rng: random.Random, count: int) -> Iterator[str]:
    ranges = [(0, 0x80), (0x80, 0xD800), (0xE000, 0x110000), (0x1F300, 0x1FB00)]
    for _ in range(count):
        yield chr(rng.randrange(*rng.choice(ranges)))


CHAT_IDS = {
    "<|plugin|>": 92538,
    "<|interpreter|>": 92539,
    "<|action_end|>": 92540,
    "<|action_start|>": 92541,
    "<|im_end|>": 92542,
    "<|im_start|>": 92543,
}


def test_chat_tokens_and_ends_have_their_published_ids(fast: Any) -> None:
    assert len(fast) == 92544
    for text, token in CHAT_IDS.items():
        assert fast(text, add_special_tokens=False)["input_ids"] == [token]
        assert fast.decode([token]) == text
        assert fast.decode([token], skip_special_tokens=True) == ""
    assert (fast.unk_token_id, fast.bos_token_id, fast.eos_token_id, fast.pad_token_id) == (
        0,
        1,
        2,
        2,
    )
    assert set(fast.all_special_ids) == {0, 1, 2, *CHAT_IDS.values()}


def test_chat_markup_splits_from_the_text_around_it(fast: Any, spm: Any) -> None:
    text = "<|im_start|>user\n你好 <|im_end|>\n"
    expected = [92543, *spm.encode("user\n你好 "), 92542, *spm.encode("\n")]
    assert fast(text, add_special_tokens=False)["input_ids"] == expected


def test_bos_is_added_as_upstream_does_unless_declined(fast: Any) -> None:
    plain = fast("你好", add_special_tokens=False)["input_ids"]
    assert fast("你好")["input_ids"] == [1, *plain]


def test_typed_markup_can_be_kept_from_being_a_control_token(fast: Any) -> None:
    for text in ("<|im_end|>", "</s>", "<s>"):
        ids = fast(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert not set(ids) & set(fast.all_special_ids)
        assert fast.decode(ids) == text


def test_the_old_name_of_a_chat_token_is_ordinary_text(fast: Any) -> None:
    ids = fast("[UNUSED_TOKEN_146]", add_special_tokens=False)["input_ids"]
    assert 92543 not in ids
    assert fast.decode(ids) == "[UNUSED_TOKEN_146]"


def test_every_id_decodes_as_sentencepiece_decodes_it(fast: Any, spm: Any) -> None:
    own = {0, 1, 2, *CHAT_IDS.values()}
    for token in (i for i in range(len(fast)) if i not in own):
        # A lone byte that is no character is U+FFFD in both.
        assert fast.decode([token]) == spm.decode([token]), token


def test_pieces_decoded_one_by_one_make_up_the_whole(fast: Any) -> None:
    text = "  Hello 世界, it is 今天 \n ok"
    ids = fast(text, add_special_tokens=False)["input_ids"]
    assert "".join(fast.decode([i]) for i in ids) == text


def test_a_saved_tokenizer_is_the_same_and_needs_nothing_of_ours(
    fast: Any, folder: Path, tmp_path: Path, shared_data: Path
) -> None:
    loading.save_tokenizer(fast, tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    assert (tmp_path / "tokenizer.model").read_bytes() == (folder / "tokenizer.model").read_bytes()
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "auto_map" not in saved
    lines = (
        (shared_data / "corpus/commonvoice_wiki_zh-cn.txt")
        .read_text(encoding="utf-8")
        .split("\n")[:300]
    )
    texts = [*ODD, *lines, "<|im_start|>user\nhi<|im_end|>"]
    (tmp_path / "config.json").write_text('{"model_type": "internlm2"}', encoding="utf-8")
    for again in (loading.load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert again(texts)["input_ids"] == fast(texts)["input_ids"]
        assert again.all_special_ids == fast.all_special_ids
        assert [again.decode(ids) for ids in again(texts)["input_ids"]] == [
            fast.decode(ids) for ids in fast(texts)["input_ids"]
        ]
    loading.save_tokenizer(loading.load_tokenizer(tmp_path), tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.model").is_file()


def test_the_chat_template_speaks_chatml(fast: Any) -> None:
    text = fast.apply_chat_template(
        [{"role": "user", "content": "你好"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<s><|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"


def small_proto(**changes: Any) -> bytes:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.byte_fallback = True
    kinds = [("<unk>", 2), ("<s>", 3), ("</s>", 3), *((f"<0x{i:02X}>", 6) for i in range(256))]
    kinds += [(c, 1) for c in "ab▁"] + [("ab", 1), ("\0", 1)]
    kinds += [(name, 4) for name in reversed(internlm2_tokenizer.CHAT_TOKENS)]
    for number, (piece, kind) in enumerate(kinds):
        proto.pieces.add(piece=piece, score=float(-number), type=kind)
    data: bytes = proto.SerializeToString()
    return data


def test_a_folder_with_only_the_sentencepiece_file_gets_ours(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(small_proto())
    words = loading.load_tokenizer(tmp_path)
    ids = words("abc ab\0<|im_end|>", add_special_tokens=False)["input_ids"]
    text = ["ab", "<0x63>", "▁", "ab", "<0x00>", "<|im_end|>"]
    assert words.convert_ids_to_tokens(ids) == text
    assert words.decode(ids) == "abc ab\0<|im_end|>"
    assert words.decode([words.convert_tokens_to_ids("<NUL>")]) == "\0"


@pytest.mark.parametrize("content", [b"\xff\xff\xff\xff not a model", b""])
def test_a_damaged_file_is_refused_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.model is damaged"):
        loading.load_tokenizer(tmp_path)


def test_another_models_sentencepiece_file_is_not_taken_for_internlm2s(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(small_proto())
    assert internlm2_tokenizer.is_internlm2(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    assert not internlm2_tokenizer.is_internlm2(tmp_path)
