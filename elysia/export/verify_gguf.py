"""Verifying that a GGUF and a folder are one model: greedy tokens, distributions and token ids.

llama.cpp reads the file in a child process; transformers reads the folder, in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.evaluate.likelihood import kl_divergence
from elysia.export.gguf_weights import get_rope_factors
from elysia.models import loading
from elysia.models.gguf.llama_server import LlamaServer

GREEDY_TOKENS = 48  # for each prompt
MAX_PROMPTS, MAX_PROMPT_TOKENS = 4, 256  # prompts used; the last tokens of each
# The mean KL(transformers || llama.cpp) in nats that is accepted. Above it, replies would differ in
# kind: 0.2 is twice what it costs when a tenth of the probability goes elsewhere.
MAX_MEAN_KL_OF_TYPE = {"f32": 1e-4, "f16": 1e-3, "q8_0": 0.02, "q4_k_m": 0.2}
# The same for a folder that came of a GGUF: llama.cpp rounds activations to 8 bits before it multiplies
# quantized weights, and the folder's weights are rounded to bfloat16. 0.006 on SmolLM2 in Q4_1.
MAX_MEAN_KL_OF_IMPORT = 0.05
EXACT_TYPES = ("f32", "f16")  # types whose greedy tokens must be those of transformers
# Two tokens whose scores differ by less are equally good: the rounding of products decides which one
# comes first.
TIE_MARGIN = 1e-3
TOP_LOGPROBS = 4096  # likeliest tokens whose probabilities are compared one by one
MIN_PROBABILITY = 1e-12  # of all unlisted tokens together, so that its logarithm is finite
SAMPLE_TEXTS = (
    "你好，很高兴认识你。今天想聊点什么？",
    "What is your name? My name is Elysia, nice to meet you.",
    "1 + 1 = 2，对吗？\n\n“当然”，她笑着说 🌸😊。",
    "def add(a, b):\n    return a + b\n\n# naïve café <s> </s> <|im_end|> [UNUSED_TOKEN_145]",
)


@dataclass(frozen=True)
class GgufVerification:
    """What was measured.

    `equal` of `tokens` greedy tokens are those of transformers; in `ties` prompts the first difference
    was between two equally good tokens. `kl` is the mean KL(transformers || llama.cpp) in nats over
    `positions`. `lines_equal` of `lines` texts get the same ids from llama.cpp's own tokenizer.
    """

    tokens: int
    equal: int
    ties: int
    kl: float
    positions: int
    lines: int
    lines_equal: int

    def metrics(self) -> dict[str, float]:
        """The values under their names in the run card."""
        return {f"gguf_{name}": value for name, value in asdict(self).items()}


def verify_gguf(
    model: Path,
    file: Path,
    file_type: str,
    prompts: Sequence[str] = (),
    *,
    bound: float | None = None,
    context: int | None = None,
) -> GgufVerification:
    """Compare the file with the model's folder.

    Args:
        prompts: texts as the model reads them; SAMPLE_TEXTS when empty.
        bound: on the mean KL; that of the type when None.
        context: the length that the file was written for; the model's own when None.

    Raises ExportError when greedy tokens of f32 or f16 are not those of transformers, or the KL is
    above the bound.
    """
    tokenizer = loading.load_tokenizer(model)
    reference = loading.load_causal_lm(model, dtype="float32", device="cpu")
    if file_type == "f16":  # the file is compared, not what rounding to float16 does to the weights
        reference = reference.half().float()
    if context and context > reference.config.max_position_embeddings:
        fix_rope_base(reference, context)
    server = LlamaServer(file, context=_get_context(reference), cache="f32")
    try:
        verification = _compare_models(reference, tokenizer, server, choose_texts(prompts))
    finally:
        server.close()
    if bound is None:
        bound = MAX_MEAN_KL_OF_TYPE[file_type]
    _check_verification(verification, file_type, bound)
    return verification


@dataclass(frozen=True)
class ImportVerification:
    """How far a folder is from its GGUF: the mean KL in nats, and texts with the same token ids."""

    kl: float
    positions: int
    lines: int
    lines_equal: int


def verify_import(folder: Path, file: Path) -> ImportVerification:
    """Compare a folder with the GGUF that it came of, in the folder's own dtype, so that memory holds the
    weights once.

    Raises ExportError when the mean KL(folder || llama.cpp) is above MAX_MEAN_KL_OF_IMPORT.
    """
    tokenizer = loading.load_tokenizer(folder)
    dtype = loading.read_config(folder).get("dtype", "bfloat16")
    model = loading.load_causal_lm(folder, dtype=dtype, device="cpu")
    server = LlamaServer(file, context=_get_context(model), cache="f32")
    kls: list[float] = []
    try:
        for text in SAMPLE_TEXTS:
            ids = tokenizer(text)["input_ids"]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids])).logits[0].float()
            for length in (len(ids) // 2, len(ids)):
                kl = estimate_kl(logits[length - 1], server, ids[:length])
                kls += [kl] if kl is not None else []
        same_ids = sum(_has_same_ids(tokenizer, server, text) for text in SAMPLE_TEXTS)
    finally:
        server.close()
    if not kls:
        raise ExportError("export.no_probabilities")
    mean = max(sum(kls) / len(kls), 0.0)
    if not mean <= MAX_MEAN_KL_OF_IMPORT:
        raise ExportError("export.import_differs", path=file, kl=mean, bound=MAX_MEAN_KL_OF_IMPORT)
    return ImportVerification(mean, len(kls), len(SAMPLE_TEXTS), same_ids)


def choose_texts(prompts: Sequence[str]) -> list[str]:
    """The first prompts that are not empty; SAMPLE_TEXTS when there are none."""
    return [text for text in prompts if text.strip()][:MAX_PROMPTS] or list(SAMPLE_TEXTS)


def fix_rope_base(model: Any, context: int) -> None:
    """Give a dynamic-NTK model the base that it has at length `context`, at every length."""
    base, _ = get_rope_factors(model.config, context)
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": base}
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=model.config)


def _get_context(model: Any) -> int:
    needed = MAX_PROMPT_TOKENS + GREEDY_TOKENS + 8
    return min(needed, int(model.config.max_position_embeddings))


def _compare_models(
    model: Any, tokenizer: Any, server: LlamaServer, texts: Sequence[str]
) -> GgufVerification:
    tokens = equal = ties = positions = 0
    kl_sum = 0.0
    longest = _get_context(model) - GREEDY_TOKENS
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][-longest:]
        expected, logits = decode_greedy(model, ids)
        actual = server.post(
            "/completion",
            {"prompt": ids, "n_predict": GREEDY_TOKENS, "temperature": 0, "return_tokens": True},
        )["tokens"]
        same, is_tie = count_agreement(expected, actual, logits)
        tokens, equal, ties = tokens + len(expected), equal + same, ties + is_tie
        for step in range(0, len(expected), max(1, len(expected) // 4)):
            kl = estimate_kl(logits[step], server, [*ids, *expected[:step]])
            kl_sum, positions = kl_sum + (kl or 0.0), positions + (kl is not None)
    if not positions:
        raise ExportError("export.no_probabilities")
    same_ids = sum(_has_same_ids(tokenizer, server, text) for text in (*texts, *SAMPLE_TEXTS))
    return GgufVerification(
        tokens=tokens,
        equal=equal,
        ties=ties,
        kl=max(kl_sum / positions, 0.0),
        positions=positions,
        lines=len(texts) + len(SAMPLE_TEXTS),
        lines_equal=same_ids,
    )


@torch.inference_mode()
def decode_greedy(model: Any, prompt: Sequence[int]) -> tuple[list[int], list[Tensor]]:
    """The likeliest tokens after `prompt`, up to and with an end token, and the logits of each."""
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    new, cache = torch.tensor([list(prompt)]), None
    tokens: list[int] = []
    logits: list[Tensor] = []
    while len(tokens) < GREEDY_TOKENS and not (tokens and tokens[-1] in ends):
        out = model(input_ids=new, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits.append(out.logits[0, -1].float())
        tokens.append(int(logits[-1].argmax()))
        new = torch.tensor([[tokens[-1]]])
    return tokens, logits


def count_agreement(
    expected: Sequence[int], actual: Sequence[int], logits: Sequence[Tensor]
) -> tuple[int, bool]:
    """How many tokens agree before the first difference, and whether that difference is a tie."""
    for step, (token, other) in enumerate(zip(expected, actual, strict=False)):
        if token != other:
            gap = float(logits[step][token] - logits[step][other])
            return step, gap < TIE_MARGIN
    # llama.cpp does not always name the end token at which it stops.
    is_whole = len(actual) >= len(expected) - 1
    return (len(expected), False) if is_whole else (len(actual), False)


def estimate_kl(logits: Tensor, server: LlamaServer, prompt: Sequence[int]) -> float | None:
    """KL in nats between softmax(logits) (vocabulary) and llama.cpp's distribution after `prompt`.

    All tokens that are not among the TOP_LOGPROBS count as one, which can only make the result smaller.
    None when llama.cpp returns no probabilities: its likeliest token is part of a character.
    """
    answer = server.post(
        "/completion",
        {
            "prompt": list(prompt),
            "n_predict": 1,
            "temperature": 0,
            "n_probs": min(TOP_LOGPROBS, logits.shape[0]),
        },
    )
    if not answer.get("completion_probabilities"):
        return None
    entries = answer["completion_probabilities"][0]["top_logprobs"]
    logprobs = {entry["id"]: max(entry["logprob"], -100.0) for entry in entries}
    listed_q = torch.tensor(list(logprobs.values()), dtype=torch.float64)
    listed_p = logits.double().log_softmax(-1)[list(logprobs)]
    if len(logprobs) < logits.shape[0]:
        listed_p, listed_q = _append_rest(listed_p), _append_rest(listed_q)
    return float(kl_divergence(listed_p, listed_q))


def _append_rest(logprobs: Tensor) -> Tensor:
    """`logprobs` with that of all other tokens together at the end."""
    rest = max(1.0 - float(logprobs.exp().sum()), MIN_PROBABILITY)
    return torch.cat([logprobs, logprobs.new_tensor([rest]).log()])


def _has_same_ids(tokenizer: Any, server: LlamaServer, text: str) -> bool:
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    body = {"content": text, "add_special": False, "parse_special": True}
    return bool(server.post("/tokenize", body)["tokens"] == expected)


def _check_verification(verification: GgufVerification, file_type: str, bound: float) -> None:
    v = verification
    if file_type in EXACT_TYPES and v.equal < v.tokens and not v.ties:
        raise ExportError("export.gguf_tokens", type=file_type, equal=v.equal, tokens=v.tokens)
    if not v.kl <= bound:
        raise ExportError("export.gguf_kl", type=file_type, kl=v.kl, bound=bound)
