"""Greedy replies in batches: what the model's own generate says, whatever they are batched with."""

import pytest
import torch

from elysia.core.errors import EngineError
from elysia.models.batch_generate import generate_batch, pad_left, supports_logits_to_keep
from elysia.models.loading import load_causal_lm, load_tokenizer

TEXTS = ("你好", "今天天气怎么样，出门要带伞吗？", "Hi", "一加一等于几?")
STOP = ("<|im_end|>",)


@pytest.fixture(scope="module")
def model(tiny_internlm2):
    return load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def tokenizer(tiny_internlm2):
    return load_tokenizer(tiny_internlm2)


def reply(model, tokenizer, texts, batch=32, limit=12, **options):
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    return generate_batch(
        model, tokenizer, prompts, stops=[STOP] * len(prompts),
        max_new_tokens=[limit] * len(prompts), batch=batch, **options,
    )  # fmt: skip


def test_replies_side_by_side_are_those_one_by_one(model, tokenizer):
    alone = [reply(model, tokenizer, [text])[0] for text in TEXTS]
    assert all(alone)
    assert reply(model, tokenizer, TEXTS) == alone
    assert reply(model, tokenizer, TEXTS, batch=2) == alone


def test_replies_are_those_of_generate(model, tokenizer):
    for text, text_reply in zip(TEXTS, reply(model, tokenizer, TEXTS), strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
            pad_token_id=0, stop_strings=list(STOP), tokenizer=tokenizer,
        )  # fmt: skip
        expected = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert text_reply == expected.split(STOP[0])[0].rstrip("\ufffd")


def test_each_prompt_has_its_own_limit_and_stop_texts(model, tokenizer):
    prompts = [tokenizer(text)["input_ids"] for text in TEXTS]
    whole = reply(model, tokenizer, TEXTS)
    stop = whole[1][2:4]
    replies = generate_batch(
        model, tokenizer, prompts, stops=[(), (stop,), (), ()], max_new_tokens=[3, 12, 12, 1]
    )
    assert replies[1] == whole[1][: whole[1].index(stop)]
    assert whole[0].startswith(replies[0]) and len(replies[0]) < len(whole[0])
    assert replies[2] == whole[2]


def test_scores_that_are_not_numbers_are_refused_where_that_is_asked_for(model, tokenizer):
    head = model.get_output_embeddings().weight
    before = head.detach().clone()
    with torch.no_grad():
        head.fill_(float("nan"))
    try:
        assert len(reply(model, tokenizer, TEXTS)) == len(TEXTS)
        with pytest.raises(EngineError, match="NaN"):
            reply(model, tokenizer, TEXTS, refuse_nan=True)
    finally:
        with torch.no_grad():
            head.copy_(before)


def test_rows_are_padded_on_the_left_and_masked():
    ids, mask = pad_left([[5], [6, 7, 8]], torch.device("cpu"), padding=1)
    assert ids.tolist() == [[1, 1, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_a_model_says_whether_it_can_leave_out_logits(model):
    assert supports_logits_to_keep(model)
    assert not supports_logits_to_keep(torch.nn.Linear(1, 1))
