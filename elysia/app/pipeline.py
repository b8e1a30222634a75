"""`pipeline(model)`: a loaded model as a function from messages to replies, as LMDeploy's users know it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from elysia.app.model_loading import ModelConfig, load_engine
from elysia.core.messages import Message
from elysia.engines.base import GenerationRequest, Sampling

# A prompt is a user's text, or a whole conversation in OpenAI's form: [{"role": …, "content": …}, …].
Prompt = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class PipelineReply:
    """One reply. `finish_reason` is "stop" or "length"; counts are in tokens. `reasoning` is what the model
    thought before it replied."""

    text: str
    prompt_tokens: int
    reply_tokens: int
    finish_reason: str | None
    reasoning: str = ""


class ChatPipeline:
    """A model that stays loaded. Close it, or use it in a `with` statement."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.engine, self.chat_format = load_engine(config)

    def __call__(
        self, prompts: Prompt | Sequence[Prompt], sampling: Sampling | None = None
    ) -> PipelineReply | list[PipelineReply]:
        """Reply to one prompt, or to each of a list of prompts, side by side where the engine can.

        Raises EngineError, among others when a prompt does not fit the model's context.
        """
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], Mapping)):
            return self._reply(prompts, sampling)  # type: ignore[arg-type]
        with ThreadPoolExecutor(self.engine.slots) as pool:
            return list(pool.map(lambda prompt: self._reply(prompt, sampling), prompts))  # type: ignore[arg-type]

    def stream(self, prompt: Prompt, sampling: Sampling | None = None) -> Iterator[str]:
        """The reply to one prompt, in pieces of text as they are generated."""
        for delta in self.engine.stream(self._build_request(prompt, sampling)):
            yield delta.text

    def _reply(self, prompt: Prompt, sampling: Sampling | None) -> PipelineReply:
        deltas = list(self.engine.stream(self._build_request(prompt, sampling)))
        last = deltas[-1]
        usage = last.usage
        return PipelineReply(
            text="".join(delta.text for delta in deltas),
            prompt_tokens=usage.prompt_tokens if usage else 0,
            reply_tokens=usage.reply_tokens if usage else 0,
            finish_reason=last.finish,
            reasoning="".join(delta.reasoning for delta in deltas),
        )

    def _build_request(self, prompt: Prompt, sampling: Sampling | None) -> GenerationRequest:
        rows = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        messages = [Message(row["role"], row["content"]) for row in rows]
        system = self.chat_format.system
        if system and messages[0].role != "system":
            messages.insert(0, Message("system", system))
        return GenerationRequest(
            tuple(messages),
            self.chat_format.template,
            self.chat_format.stop,
            sampling or self.config.sampling,
        )

    def close(self) -> None:
        """Free the model."""
        self.engine.close()

    def __enter__(self) -> ChatPipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def pipeline(model: str, **options: Any) -> ChatPipeline:
    """Load a model folder, a `.gguf` file or a server's URL; `options` are the fields of `ModelConfig`.

    The prompt template, system prompt and stop texts are those of the model's run card unless given.
    """
    return ChatPipeline(ModelConfig(model, **options))
