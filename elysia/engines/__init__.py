"""Engines: one interface to whatever generates replies, and an implementation in each module.

`transformers` is the reference; `llama_cpp` serves a GGUF; `openai` reaches any OpenAI-compatible
server; `scripted` replies from a list. `lmdeploy` starts LMDeploy's servers.
"""

from elysia.engines.base import (
    Capability,
    Delta,
    Engine,
    FinishReason,
    GenerationRequest,
    Sampling,
    TokenLogprob,
    TokenUsage,
)

__all__ = [
    "Capability",
    "Delta",
    "Engine",
    "FinishReason",
    "GenerationRequest",
    "Sampling",
    "TokenLogprob",
    "TokenUsage",
]
