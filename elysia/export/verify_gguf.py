"""The proof that a GGUF is its model: greedy tokens, distributions and token ids against transformers.

llama.cpp reads the file in a child process; transformers reads the folder, in float32. Knows nothing
of how the file was written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elysia.core.errors import ExportError
from elysia.export.gguf_weights import get_rope_factors
from elysia.models import loading
from elysia.models.gguf.llama_server import LlamaServer

GREEDY_TOKENS = 48  # greedy tokens for each prompt
MAX_PROMPTS, MAX_PROMPT_TOKENS = 4, 256  # prompts used; the last tokens of each
# Mean KL(transformers || llama.cpp) in nats that is let through. Above it, replies would differ in
# kind: 0.2 is what a tenth of the probability going elsewhere costs twice over.
MAX_MEAN_KL_OF_TYPE = {"f32": 1e-4, "f16": 1e-3, "q8_0": 0.02, "q4_k_m": 0.2}
EXACT_TYPES = ("f32", "f16")  # types whose greedy tokens must be transformers'
# Two tokens whose scores differ by less are equally good, and either may come first: rounding of
# the products decides.
TIE_MARGIN = 1e-3
TOP_LOGPROBS = 4096  # likeliest tokens whose probabilities are compared one by one
SAMPLE_TEXTS = (
    "你好，很高兴认识你。今天想聊点什么？",
    "What is your name? My name is Elysia, nice to meet you.",
    "1 + 1 = 2，对吗？\n\n“当然”，她笑着说 🌸😊。",
    "def add(a, b):\n    return a + b\n\n# naïve café <s> </s> <|im_end|> [UNUSED_TOKEN_145]",
)


@dataclass(frozen=True)
class GgufVerification:
    """What was measured.

    `equal` of `tokens` greedy tokens are transformers'; `ties` prompts parted where two tokens were
    equally good. `kl` is the mean KL(transformers || llama.cpp) in nats over `positions`. `lines_equal`
    of `lines` texts get the same ids from llama.cpp's own tokenizer.
    """

    tokens: int
    equal: int
    ties: int
    kl: float
    positions: int
    lines: int
    lines_equal: int

    def metrics(self) -> dict[str, float]:
        """As the run card names them."""
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
        prompts: texts as the model reads them; LINES when empty.
        bound: on the mean KL; the type's of BOUNDS when None.
        context: the length that the file was written for; the model's own when None.

    Raises ExportError when greedy tokens of f32 or f16 are not transformers', or the KL is above
    the bound.
    """
    tokenizer = loading.load_tokenizer(model)
    reference = loading.load_causal_lm(model, dtype="float32", device="cpu")
    if file_type == "f16":  # what is compared is the file, not what float16 does to the weights
        reference = reference.half().float()
    if context and context > reference.config.max_position_embeddings:
        fix_rope_base(reference, context)
    texts = [text for text in prompts if text.strip()][:MAX_PROMPTS] or list(SAMPLE_TEXTS)
    server = LlamaServer(file, context=_get_context(reference), cache="f32")
    try:
        proof = _compare_models(reference, tokenizer, server, texts)
    finally:
        server.close()
    _check_verification(
        proof, file, file_type, MAX_MEAN_KL_OF_TYPE[file_type] if bound is None else bound
    )
    return proof


def fix_rope_base(model: Any, context: int) -> None:
    """Give a dynamic-NTK model the base that it has at length `context`, at every length."""
    base, _ = get_rope_factors(model.config, context)
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": base}
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=model.config)


def _get_context(model: Any) -> int:
    return min(MAX_PROMPT_TOKENS + GREEDY_TOKENS + 8, int(model.config.max_position_embeddings))


def _compare_models(
    model: Any, tokenizer: Any, server: LlamaServer, texts: Sequence[str]
) -> GgufVerification:
    tokens = equal = ties = positions = 0
    kl = 0.0
    longest = _get_context(model) - GREEDY_TOKENS
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][-longest:]
        wanted, logits = decode_greedy(model, ids)
        found = server.post(
            "/completion",
            {"prompt": ids, "n_predict": GREEDY_TOKENS, "temperature": 0, "return_tokens": True},
        )["tokens"]
        same, tie = count_agreement(wanted, found, logits)
        tokens, equal, ties = tokens + len(wanted), equal + same, ties + tie
        for step in range(0, len(wanted), max(1, len(wanted) // 4)):
            apart = estimate_kl(logits[step], server, [*ids, *wanted[:step]])
            kl, positions = kl + (apart or 0.0), positions + (apart is not None)
    if not positions:
        raise ExportError("llama.cpp gave no probabilities for any prompt: the proof is void.")
    lines = sum(_has_same_ids(tokenizer, server, text) for text in (*texts, *SAMPLE_TEXTS))
    return GgufVerification(
        tokens,
        equal,
        ties,
        max(kl / positions, 0.0),
        positions,
        len(texts) + len(SAMPLE_TEXTS),
        lines,
    )


@torch.inference_mode()
def decode_greedy(model: Any, prompt: Sequence[int]) -> tuple[list[int], list[Tensor]]:
    """The likeliest tokens after `prompt`, up to an end token (counted), and the logits of each."""
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
    wanted: Sequence[int], found: Sequence[int], logits: Sequence[Tensor]
) -> tuple[int, bool]:
    """How many tokens agree before the first difference, and whether that difference is a tie."""
    for step, (one, other) in enumerate(zip(wanted, found, strict=False)):
        if one != other:
            gap = float(logits[step][one] - logits[step][other])
            return step, gap < TIE_MARGIN
    # Where llama.cpp stops, at a token that ends a turn, it does not always name that token.
    return (len(wanted), False) if len(found) >= len(wanted) - 1 else (len(found), False)


def estimate_kl(logits: Tensor, server: LlamaServer, prompt: Sequence[int]) -> float | None:
    """KL in nats between softmax(logits) (vocabulary) and llama.cpp's distribution after `prompt`.

    Beyond LISTED tokens the rest counts as one, which can only make the result smaller. None where
    llama.cpp tells nothing: its likeliest token is a part of a character.
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
    told = torch.full_like(logits, -float("inf"), dtype=torch.float64)
    for entry in answer["completion_probabilities"][0]["top_logprobs"]:
        told[entry["id"]] = max(entry["logprob"], -100.0)
    mine = logits.double().log_softmax(-1)
    listed = told.isfinite()
    apart = float((mine[listed].exp() * (mine[listed] - told[listed])).sum())
    rest, theirs = (max(1.0 - float(d[listed].exp().sum()), 1e-12) for d in (mine, told))
    return apart + (rest * math.log(rest / theirs) if not listed.all() else 0.0)


def _has_same_ids(tokenizer: Any, server: LlamaServer, text: str) -> bool:
    wanted = tokenizer(text, add_special_tokens=False)["input_ids"]
    body = {"content": text, "add_special": False, "parse_special": True}
    return bool(server.post("/tokenize", body)["tokens"] == wanted)


def _check_verification(proof: GgufVerification, file: Path, file_type: str, bound: float) -> None:
    if file_type in EXACT_TYPES and proof.equal < proof.tokens and not proof.ties:
        raise ExportError(
            f"The {file_type} GGUF does not say what the model says: {proof.equal} of "
            f"{proof.tokens} greedy tokens are equal. It was not kept."
        )
    if not proof.kl <= bound:
        raise ExportError(
            f"The {file_type} GGUF is too far from the model: KL {proof.kl:.3g} nats, and at most "
            f"{bound:g} is let through. It was not kept; choose a wider type, such as q8_0 or f16."
        )
