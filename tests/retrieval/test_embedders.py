"""Embedding models: pooled as their own files say, batches that do not matter, unknown pooling refused."""

from __future__ import annotations

import json

import pytest
import torch

from elysia.core.errors import ModelError
from elysia.retrieval.embedders import PoolingMode, open_embedder, pool

TEXTS = ["a rose", "a pink rose in the glass house on the hill", "the sea"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_llama):
    """A tiny model as an embedder; which pooling it names is written by each test."""
    folder = tmp_path_factory.mktemp("embedder")
    for file in tiny_llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "1_Pooling").mkdir()
    prompts = {"query": "query: ", "document": "passage: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder


def write_pooling(folder, **config):
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


def states_of(folder, text):
    """The last layer of one text, without padding (tokens, hidden)."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[0].float()


EXPECTED = {
    "cls_token": lambda states: states[0],
    "mean_tokens": lambda states: states.mean(0),
    "max_tokens": lambda states: states.amax(0),
    "mean_sqrt_len_tokens": lambda states: states.sum(0) / len(states) ** 0.5,
    "lasttoken": lambda states: states[-1],
    "weightedmean_tokens": lambda states: (
        (states * torch.arange(1, len(states) + 1)[:, None]).sum(0) / sum(range(len(states) + 1))
    ),
}


@pytest.mark.parametrize("flag", EXPECTED)
def test_a_text_is_pooled_as_the_models_file_says_whatever_the_batch(folder, flag):
    write_pooling(folder, **{f"pooling_mode_{flag}": True, "pooling_mode_other": False})
    embedder = open_embedder(str(folder))
    for text, vector in zip(TEXTS, embedder.embed(TEXTS), strict=True):
        expected = torch.nn.functional.normalize(
            EXPECTED[flag](states_of(folder, f"passage: {text}")), dim=0
        )
        assert torch.allclose(torch.tensor(vector), expected, atol=1e-4)
    assert embedder.dimensions == len(embedder.embed(["x"])[0])


def test_padding_on_the_left_changes_nothing():
    states, mask = torch.randn(1, 3, 4), torch.ones(1, 3, dtype=torch.int64)
    padded = torch.cat([torch.randn(1, 2, 4), states], dim=1)
    padded_mask = torch.tensor([[0, 0, 1, 1, 1]])
    for mode in PoolingMode:
        assert torch.allclose(pool(states, mask, mode), pool(padded, padded_mask, mode))


def test_questions_have_a_prompt_of_their_own(folder):
    write_pooling(folder, pooling_mode="mean")
    embedder = open_embedder(str(folder))
    assert embedder.embed(["rose"], question=True) != embedder.embed(["rose"])


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_attention": True},
        {"pooling_mode": "attention"},
        {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True},
    ],
)
def test_a_pooling_that_is_not_known_is_refused(folder, config):
    write_pooling(folder, **config)
    with pytest.raises(
        ModelError, match=r"1_Pooling/config.json names the pooling .*supported: cls"
    ):
        open_embedder(str(folder))


def test_a_folder_that_is_not_there_or_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="There is no folder"):
        open_embedder("./nowhere")
    with pytest.raises(ModelError, match="holds no embedding model"):
        open_embedder(str(tmp_path))
