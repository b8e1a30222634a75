"""The reference engine on tiny random models: equal to generate, seeded, cancellable, bounded."""

import threading
from dataclasses import replace

import pytest
import torch

from elysia.core.errors import EngineError, ModelError
from elysia.core.messages import Message
from elysia.core.templates import get_template
from elysia.data.tokenize.encoder import encode_prompt
from elysia.engines import transformers as engine_module
from elysia.engines.base import GenerationRequest, Sampling
from elysia.engines.transformers import sample_token

TEMPLATE = get_template("internlm2_chat")
GREEDY = Sampling(max_new_tokens=24, temperature=0)
ASKED = (Message("system", "你是爱莉希雅。"), Message("user", "你好,你是谁?"))
REQUEST = GenerationRequest(ASKED, TEMPLATE, ("<|im_end|>",), GREEDY)


@pytest.fixture(scope="module")
def engine(tiny_internlm2):
    return engine_module.build_engine(tiny_internlm2, dtype="float32", device="cpu")


def text_of(engine, request, cancel=None):
    return "".join(delta.text for delta in engine.stream(request, cancel))


def generated(engine, request, **options):
    """What transformers' own generate says, decoded whole."""
    ids = torch.tensor([encode_prompt(request.messages, TEMPLATE, engine.tokenizer)])
    out = engine.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=request.sampling.max_new_tokens,
        eos_token_id=sorted(engine.stop_ids(request.stop)),
        pad_token_id=0,
        **options,
    )
    text = engine.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text.rstrip("\ufffd")


@pytest.mark.parametrize("question", ["你好", "Hello, who are you?", "讲个故事吧🌸"])
def test_greedy_text_equals_generate(engine, question):
    request = replace(REQUEST, messages=(Message("user", question),))
    assert text_of(engine, request) == generated(engine, request, do_sample=False)


def test_the_repetition_penalty_equals_generates(engine):
    request = replace(REQUEST, sampling=replace(GREEDY, repetition_penalty=0.3))
    penalized = text_of(engine, request)
    assert penalized == generated(engine, request, do_sample=False, repetition_penalty=0.3)
    assert penalized != text_of(engine, REQUEST)


def test_deltas_are_whole_characters_and_end_with_the_count(engine):
    *middle, last = engine.stream(replace(REQUEST, sampling=replace(GREEDY, max_new_tokens=60)))
    assert all(delta.text and delta.finish is None for delta in middle)
    assert last.finish in ("stop", "length")
    assert last.usage.prompt_tokens == engine.count_tokens(ASKED, TEMPLATE)
    assert 0 < last.usage.reply_tokens <= 60


def test_equal_seeds_draw_equal_replies_and_nobody_elses_dice_are_touched(engine):
    def drawn(seed):
        sampling = Sampling(max_new_tokens=20, temperature=1.5, top_k=0, top_p=1.0, seed=seed)
        return text_of(engine, replace(REQUEST, sampling=sampling))

    before = torch.get_rng_state()
    first = drawn(1)
    assert drawn(1) == first
    assert drawn(2) != first
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stop_word_that_is_one_token_ends_the_reply_unseen(engine):
    """Special tokens have no text: only their id can end a reply."""
    end = engine.tokenizer.convert_tokens_to_ids("<|im_end|>")
    decoder = engine.new_decoder(REQUEST, [])
    ids = engine.tokenizer.encode("你好", add_special_tokens=False)
    shown = "".join(decoder.push(token).text for token in [*ids, end])
    assert (shown, decoder.finished, decoder.tokens) == ("你好", True, len(ids) + 1)
    assert "<|im_end|>" not in shown


def test_other_special_tokens_are_not_shown(engine):
    decoder = engine.new_decoder(replace(REQUEST, stop=()), [])
    word = engine.tokenizer.encode("好", add_special_tokens=False)
    token = engine.tokenizer.convert_tokens_to_ids("<|plugin|>")
    shown = "".join(decoder.push(i).text for i in [*word, token, *word]) + decoder.rest().text
    assert shown == "好好"


def test_thoughts_and_their_control_tokens_are_apart(engine):
    """Magistral's marks are control tokens, which have no text; a prompt may have opened the thought."""
    engine.tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})

    def encode(text):
        return engine.tokenizer.encode(text, add_special_tokens=False)

    for prompt, reply in (
        ("", "[THINK]Hm.[/THINK]Hello"),
        ("<|im_end|>[THINK]\n", "Hm.[/THINK]Hello"),
    ):
        decoder = engine.new_decoder(REQUEST, encode(prompt))
        pieces = [*map(decoder.push, encode(reply)), decoder.rest()]
        assert "".join(piece.text for piece in pieces) == "Hello"
        assert "".join(piece.reasoning for piece in pieces) == "Hm."
        assert decoder.reasoning_tokens == decoder.tokens - len(encode("Hello"))


def test_a_stop_text_that_is_said_in_one_token_is_never_shown(engine):
    text = text_of(engine, REQUEST)
    first = engine.tokenizer.encode(text, add_special_tokens=False)[3]
    stop = engine.tokenizer.decode([first])
    deltas = list(engine.stream(replace(REQUEST, stop=(stop,))))
    shown = "".join(delta.text for delta in deltas)
    assert deltas[-1].finish == "stop"
    assert stop not in shown
    assert text.startswith(shown)


def test_a_stop_text_across_tokens_is_never_shown(engine):
    text = text_of(engine, REQUEST)
    middle = text[len(text) // 3 : len(text) // 3 + 4]
    deltas = list(engine.stream(replace(REQUEST, stop=(middle,))))
    assert "".join(delta.text for delta in deltas) == text[: text.index(middle)]
    assert deltas[-1].finish == "stop"


def test_cancelling_ends_within_a_token(engine):
    cancel = threading.Event()
    deltas = []
    for delta in engine.stream(
        replace(REQUEST, sampling=replace(GREEDY, max_new_tokens=500)), cancel
    ):
        deltas.append(delta)
        cancel.set()
    assert deltas[-1].finish == "cancelled"
    assert len(deltas) <= 3


def test_a_prompt_longer_than_the_context_is_a_sentence(engine):
    long = replace(REQUEST, messages=(Message("user", "很长" * 3000),))
    with pytest.raises(EngineError, match=r"context is 2048"):
        text_of(engine, long)


def test_the_contexts_end_ends_the_reply(engine, monkeypatch):
    prompt = engine.count_tokens(ASKED, TEMPLATE)
    monkeypatch.setattr(type(engine), "context_length", prompt + 5)
    *_, last = engine.stream(replace(REQUEST, stop=()))
    assert (last.finish, last.usage.reply_tokens) == ("length", 5)


def test_two_threads_take_turns_and_one_who_gives_up_waits_no_longer(engine):
    first = engine.stream(REQUEST)
    next(first)  # holds the model
    cancel = threading.Event()
    cancel.set()
    [only] = engine.stream(REQUEST, cancel)
    assert only.finish == "cancelled"
    assert only.usage.reply_tokens == 0
    first.close()
    assert text_of(engine, REQUEST) == text_of(engine, REQUEST)


def test_damaged_weights_are_a_sentence(engine):
    head = engine.model.get_output_embeddings().weight
    weights = head.detach().clone()
    with torch.no_grad():
        head.fill_(float("nan"))
    try:
        with pytest.raises(EngineError, match="NaN"):
            text_of(engine, REQUEST)
    finally:
        with torch.no_grad():
            head.copy_(weights)


def test_a_batch_says_what_each_would_say_alone(engine):
    questions = ["你好", "What is your name? Tell me everything, please.", "一加一等于几?", "嗯"]
    requests = [replace(REQUEST, messages=(Message("user", text),)) for text in questions]
    assert engine.generate_batch(requests, batch=3) == [text_of(engine, r) for r in requests]


def test_a_batch_refuses_to_sample(engine):
    with pytest.raises(EngineError, match="greedy"):
        engine.generate_batch([replace(REQUEST, sampling=Sampling())])


def test_other_architectures_answer_too(tiny_llama):
    engine = engine_module.build_engine(tiny_llama, dtype="float32", device="cpu")
    assert text_of(engine, REQUEST) == generated(engine, REQUEST, do_sample=False)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_weights_answer(tiny_internlm2, bits):
    engine = engine_module.build_engine(tiny_internlm2, dtype="float32", device="cpu", bits=bits)
    *_, last = engine.stream(REQUEST)
    assert last.finish in ("stop", "length")


@pytest.fixture
def adapter(tiny_internlm2, tmp_path):
    """A LoRA adapter folder whose effect cannot be missed."""
    from peft import LoraConfig, get_peft_model

    from elysia.models.loading import load_causal_lm

    base = load_causal_lm(tiny_internlm2, dtype="float32", device="cpu")
    config = LoraConfig(r=4, target_modules=["o_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    model = get_peft_model(base, config)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_changes_the_answer(engine, tiny_internlm2, adapter):
    adapted = engine_module.build_engine(
        tiny_internlm2, adapter=adapter, dtype="float32", device="cpu"
    )
    assert text_of(adapted, REQUEST) != text_of(engine, REQUEST)
    assert text_of(adapted, REQUEST) == generated(adapted, REQUEST, do_sample=False)


def test_an_adapter_of_another_shape_is_a_sentence(tiny_tokenizer, adapter, tmp_path):
    from elysia.models import tiny

    other = tiny.init_model(
        tmp_path / "other", tokenizer=tiny_tokenizer, hidden_size=32, layers=2, heads=2
    )
    with pytest.raises(ModelError, match="another base"):
        engine_module.build_engine(other, adapter=adapter, dtype="float32", device="cpu")


def test_top_k_and_top_p_keep_only_the_likeliest():
    logits = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    nothing = torch.zeros(0, dtype=torch.long)

    def drawn(**options):
        sampling = Sampling(**{"temperature": 2.0, "top_k": 0, "top_p": 1.0, **options})
        return {sample_token(logits, sampling, nothing, generator) for _ in range(300)}

    assert drawn() == {0, 1, 2, 3, 4}
    assert drawn(top_k=2) == {0, 1}
    assert drawn(top_p=0.3) == {0}
    assert drawn(top_p=0.5) == {0, 1}
    assert drawn(temperature=0.01) == {0}


def test_draws_follow_the_distribution_that_transformers_would_use():
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    torch.manual_seed(0)
    logits = torch.randn(50) * 3
    want = TopPLogitsWarper(0.8)(
        None, TopKLogitsWarper(20)(None, TemperatureLogitsWarper(0.7)(None, logits[None]))
    ).softmax(-1)[0]
    sampling, generator = (
        Sampling(temperature=0.7, top_k=20, top_p=0.8),
        torch.Generator().manual_seed(1),
    )
    nothing = torch.zeros(0, dtype=torch.long)
    counts = torch.zeros(50)
    for _ in range(4000):
        counts[sample_token(logits, sampling, nothing, generator)] += 1
    assert set(counts.nonzero().flatten().tolist()) <= set(want.nonzero().flatten().tolist())
    assert (counts / 4000 - want).abs().max() < 0.04


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("bits", [None, 4])
def test_on_a_gpu_it_answers_greedily_and_by_seed(tiny_internlm2, bits):
    engine = engine_module.build_engine(tiny_internlm2, device="cuda", bits=bits)
    assert engine.model.device.type == "cuda"
    assert text_of(engine, REQUEST) == text_of(engine, REQUEST)
    drawn = replace(REQUEST, sampling=Sampling(max_new_tokens=20, temperature=1.5, seed=3))
    assert text_of(engine, drawn) == text_of(engine, drawn)
    assert engine.generate_batch([REQUEST])
