"""Loss of replies: what a plain forward pass gives, whatever they are batched with."""

import pytest
import torch

from elysia.core.messages import Message
from elysia.core.templates import get_template, render_training_pieces
from elysia.data.tokenize.encoder import encode
from elysia.evaluate.likelihood import (
    ReplyLoss,
    ReplyScorer,
    compute_bits_per_character,
    compute_perplexity,
)
from elysia.models.loading import load_causal_lm, load_tokenizer


@pytest.fixture(scope="module")
def reader(tiny_internlm2):
    model = load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")
    return ReplyScorer(
        model, load_tokenizer(tiny_internlm2), get_template("internlm2_chat"), batch=3
    )


def talk(*texts):
    return [Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]


TALKS = [talk("你好", "你好呀。"), talk("今天天气怎么样？", "很好。", "那我们去走走？", "好的，等我一下。"), talk("Hi", "Hello! How are you today?"),
         talk("一加一等于几？", "二。")]  # fmt: skip


def plain(reader, messages):
    messages_before = [
        Message(m.role, m.text, learn=False) if m.role == "assistant" else m for m in messages[:-1]
    ]
    row = encode(
        render_training_pieces([*messages_before, messages[-1]], reader.template), reader.tokenizer
    )
    ids, labels = torch.tensor([row.ids]), torch.tensor(row.labels)
    with torch.no_grad():
        logits = reader.model(input_ids=ids).logits[0].float()
    some = labels[1:] != -100
    return float(
        torch.nn.functional.cross_entropy(logits[:-1][some], labels[1:][some], reduction="sum")
    )


def test_losses_are_those_of_plain_forward_passes(reader):
    losses = reader.losses(TALKS)
    for messages, loss in zip(TALKS, losses, strict=True):
        assert loss.nats == pytest.approx(plain(reader, messages), rel=1e-4)
        assert loss.characters == len(messages[-1].text)
    assert losses == [reader.losses([t])[0] for t in TALKS] or all(
        a.nats == pytest.approx(reader.losses([t])[0].nats, rel=1e-4)
        for a, t in zip(losses, TALKS, strict=True)
    )


def test_earlier_turns_of_a_talk_that_is_too_long_are_left_out(reader):
    short = ReplyScorer(reader.model, reader.tokenizer, reader.template, longest=40)
    long = [*talk(*(["说了很多很多的话"] * 8)), *TALKS[0]]
    assert short.losses([long])[0].tokens == reader.losses([TALKS[0]])[0].tokens


def test_the_likeliest_candidate_is_chosen(reader):
    means = [
        loss.mean
        for loss in reader.losses(
            [[*TALKS[0][:1], Message("assistant", t)] for t in ("好。", "走吧。", "Hello")]
        )
    ]
    assert reader.choose(TALKS[0][:1], ["好。", "走吧。", "Hello"]) == means.index(min(means))


def test_perplexity_and_bits():
    losses = [ReplyLoss(2.0, 2, 4), ReplyLoss(4.0, 4, 2)]
    assert compute_perplexity(losses) == pytest.approx(2.718281828)
    assert compute_bits_per_character(losses) == pytest.approx(6 / 0.69314718 / 6)
