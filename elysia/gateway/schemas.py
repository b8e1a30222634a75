"""The bodies that clients send, and their limits: OpenAI's API, https://platform.openai.com/docs/api-reference.

Unknown fields are accepted and ignored, because OpenAI's clients send new ones all the time. The names of
these classes are part of the interface: pydantic puts them into error messages, and FastAPI into
/openapi.json with their docstrings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_TEXT_CHARS = 1_000_000  # the limit of the whole body usually comes first
MAX_SPEECH_CHARS = 4096  # OpenAI's limit
LimitedText = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
StopText = Annotated[str, Field(min_length=1, max_length=200)]


class RequestModel(BaseModel):
    """Base of the bodies: numbers must be finite, unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class TextPart(RequestModel):
    """Words, as a part of a message."""

    type: Literal["text"]
    text: LimitedText


class ImageUrl(RequestModel):
    """An image: its bytes in base64, or where the engine's server finds it."""

    url: Annotated[str, Field(pattern="^(data:image/|https?://)")]


class ImagePart(RequestModel):
    """An image, as a part of a message; for engines that see."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Called(BaseModel):
    """A function's name and its arguments, which are JSON in a string."""

    name: str = Field(max_length=64)
    arguments: LimitedText


class Call(BaseModel):
    """A call that the assistant made earlier."""

    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: Called


class Function(BaseModel):
    """A function that may be called. Unknown fields are passed on."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    name: str = Field(pattern="^[a-zA-Z0-9_-]{1,64}$")
    description: LimitedText | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool; functions are the only ones there are."""

    type: Literal["function"]
    function: Function


class Named(BaseModel):
    """A function by its name."""

    name: str = Field(max_length=64)


class ToolChoice(BaseModel):
    """The one function that must be called."""

    type: Literal["function"]
    function: Named


ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(RequestModel):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: LimitedText | Annotated[list[ContentPart], Field(max_length=256)] | None = None
    tool_calls: list[Call] | None = Field(default=None, max_length=128)
    tool_call_id: str | None = Field(default=None, max_length=256)

    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if isinstance(part, TextPart))
        return self.content or ""

    def images(self) -> tuple[str, ...]:
        """The URLs of the images among the content."""
        parts = self.content if isinstance(self.content, list) else []
        return tuple(part.image_url.url for part in parts if isinstance(part, ImagePart))

    @model_validator(mode="after")
    def _check_role(self) -> ChatMessage:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("tool_calls are an assistant's")
        if self.tool_call_id and self.role != "tool":
            raise ValueError("tool_call_id is a tool's")
        return self


class StreamOptions(RequestModel):
    """Whether the stream ends with the count of tokens."""

    include_usage: bool = False


class JsonSchema(RequestModel):
    """A schema that the reply must keep to."""

    name: str = Field(default="reply", max_length=64)
    json_schema: dict[str, Any] = Field(default_factory=dict, alias="schema")


class ResponseFormat(RequestModel):
    """The form of the reply."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is missing beside type 'json_schema'")
        return self


class SamplingFields(RequestModel):
    """How replies are sampled; the server's default for what is left out."""

    model: str = Field(max_length=256)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    n: int = Field(default=1, ge=1, le=8)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: StopText | Annotated[list[StopText], Field(max_length=16)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = Field(default=None, max_length=256)

    def stops(self) -> tuple[str, ...]:
        """The stop texts as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @model_validator(mode="after")
    def _check_options(self) -> SamplingFields:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only for stream = true")
        if self.logit_bias:
            raise ValueError("logit_bias is not served")
        return self


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class TemplateOptions(RequestModel):
    """What a chat template may be asked for, as vLLM and SGLang take it. Either name means the same."""

    enable_thinking: bool | None = None
    thinking: bool | None = None
    reasoning_effort: Effort | None = None


class ThinkingMode(RequestModel):
    """Whether to think before the reply, as DeepSeek's API takes it."""

    type: Literal["enabled", "disabled"]


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: TemplateOptions | None = None
    reasoning_effort: Effort | None = None
    thinking: ThinkingMode | None = None

    def thinks(self) -> bool | None:
        """Whether the model is to think before it replies; None when the client does not say."""
        options = self.chat_template_kwargs or TemplateOptions()
        if options.enable_thinking is not None:
            return options.enable_thinking
        if options.thinking is not None:
            return options.thinking
        return None if self.thinking is None else self.thinking.type == "enabled"

    def effort(self) -> Effort | None:
        """How much the model is to think; None when the client does not say."""
        options = self.chat_template_kwargs or TemplateOptions()
        return self.reasoning_effort or options.reasoning_effort

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is only for logprobs = true")
        return self

    @model_validator(mode="after")
    def _check_tools(self) -> ChatRequest:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("two tools have one name")
        choice = self.tool_choice
        if isinstance(choice, ToolChoice) and choice.function.name not in names:
            raise ValueError(f"tool_choice names {choice.function.name!r}, which is not in tools")
        if choice == "required" and not names:
            raise ValueError("tool_choice is 'required' and there are no tools")
        return self


class CompletionRequest(SamplingFields):
    """POST /v1/completions: plain text to go on from."""

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    logprobs: int | None = Field(default=None, ge=0, le=5)
    echo: Literal[False] = False


class EmbeddingRequest(RequestModel):
    """POST /v1/embeddings."""

    model: str = Field(max_length=256)
    input: (
        Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]],
            Field(min_length=1, max_length=256),
        ]
    )
    encoding_format: Literal["float", "base64"] = "float"

    def texts(self) -> list[str]:
        """The inputs as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


class VoiceName(RequestModel):
    """A voice as some clients name it."""

    id: str = Field(max_length=64)


class SpeechRequest(RequestModel):
    """POST /v1/audio/speech. `model` is taken and has no meaning: a voice is a model of its own."""

    model: str = Field(default="", max_length=256)
    input: Annotated[str, Field(min_length=1, max_length=MAX_SPEECH_CHARS)]
    voice: Annotated[str, Field(max_length=64)] | VoiceName
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    speed: float = Field(default=1.0, ge=0.25, le=4)
    stream_format: Literal["audio", "sse"] | None = None

    @property
    def name(self) -> str:
        """The voice's name."""
        return self.voice if isinstance(self.voice, str) else self.voice.id


class SimpleRequest(RequestModel):
    """POST /: a prompt and what was said before, as (message, reply) pairs."""

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    history: list[tuple[LimitedText, LimitedText]] = Field(default_factory=list, max_length=5_000)
    max_length: int | None = Field(default=None, ge=1, le=10_000_000)
    top_p: float | None = Field(default=None, gt=0, le=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
