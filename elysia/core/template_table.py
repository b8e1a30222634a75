"""The table of prompt templates: 27 chat formats and 8 system texts, under XTuner's names.

The strings are the formats that the models were trained with. Tests compare each of them with what
XTuner 0.2.0 produces; docs/templates.md lists the differences. A new template is one more entry of
`_ALL`. `templates` renders conversations with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from elysia.core.errors import TemplateError, nearest
from elysia.core.messages import Conversation
from elysia.core.turn_rendering import TextPiece, render_turn_prompt, render_turn_training


@dataclass(frozen=True)
class PromptTemplate:
    """The format that turns a conversation into text.

    A turn is `system` (where it has a system text) + `instruction`, then the learned reply + `suffix`,
    an end-of-sequence token unless `suffix_as_eos` says that the suffix is one already, then `sep`.
    `{system}`, `{input}` and `{round}` (from 1) are the only fields; any other brace is text. Generation
    ends at any of `stop_words` or at the model's own end-of-sequence token.

    Raises TemplateError when a pattern lacks its field.
    """

    name: str
    system: str
    instruction: str
    suffix: str = ""
    suffix_as_eos: bool = False
    sep: str = ""
    stop_words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "{system}" not in self.system:
            raise TemplateError(
                "core.template_lacks_field", name=self.name, part="system", field="{system}"
            )
        if "{input}" not in self.instruction:
            raise TemplateError(
                "core.template_lacks_field", name=self.name, part="instruction", field="{input}"
            )
        if self.suffix_as_eos and not self.suffix:
            raise TemplateError("core.template_needs_suffix", name=self.name)

    def get_stop_words(self) -> tuple[str, ...]:
        """The stop words, and the suffix where it is not among them."""
        words = (*self.stop_words, self.suffix)
        return tuple(dict.fromkeys(word for word in words if word))

    def render_training(self, conversation: Conversation) -> list[list[TextPiece]]:
        """See ChatTemplate; always one sample."""
        return render_turn_training(conversation, self)

    def render_prompt(self, conversation: Conversation) -> list[TextPiece]:
        """See ChatTemplate."""
        return render_turn_prompt(conversation, self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a run card."""
        return {**asdict(self), "stop_words": list(self.stop_words)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PromptTemplate:
        """The template that `to_dict` wrote. Raises TemplateError for a missing or wrong field."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                hint = nearest(str(key), known)
                raise TemplateError("core.template_unknown_field", key=key, hint=hint)
        for key in ("name", "system", "instruction"):
            if key not in values:
                raise TemplateError("core.template_needs_field", key=key)
        for key in ("name", "system", "instruction", "suffix", "sep"):
            if not isinstance(values.get(key, ""), str):
                raise TemplateError("core.template_field_not_text", key=key)
        words = values.get("stop_words", ())
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise TemplateError("core.template_stop_words")
        return cls(**{**values, "stop_words": tuple(words)})


_IM = (
    "<|im_start|>system\n{system}<|im_end|>\n",
    "<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n",
    "<|im_end|>",
    True,
    "\n",
)
_QWEN_STOPS = ("<|im_end|>", "<|endoftext|>")
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. {system}\n ",
    "USER: {input} ASSISTANT:",
)
_DEEPSEEK_CODER = (
    "You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeek"
    "Company, and you only answer questions related to computer science. For politically sensitive "
    "questions, security and privacy issues, and other non-computer science questions, you will "
    "refuse to answer. {system}\n",
    "### Instruction:\n{input}\n### Response:\n",
)
_INST = ("[INST] {system} [/INST]\n", "[INST] {input} [/INST]")
_LLAMA2_SYSTEM = (
    "[INST] <<SYS>>\n You are a helpful, respectful and honest assistant. Always answer as "
    "helpfully as possible, while being safe. Your answers should not include any harmful, "
    "unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure that "
    "your responses are socially unbiased and positive in nature.\n{system}\n<</SYS>>\n [/INST] "
)
_WIZARDCODER_SYSTEM = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n{system}\n "
)
# XTuner has no system pattern for minicpm and fails when a row has a system text; this is the pattern
# that its own evaluation chats fall back to.
_BARE_SYSTEM = "{system}\n"

_T = PromptTemplate
_ALL = (
    _T("default", "<|System|>:{system}\n", "<|User|>:{input}\n<|Bot|>:", sep="\n"),
    _T("zephyr", "<|system|>\n{system}\n", "<|user|>\n{input}\n<|assistant|>\n", sep="\n"),
    _T(
        "internlm_chat",
        "<|System|>:{system}\n",
        "<|User|>:{input}<eoh>\n<|Bot|>:",
        "<eoa>",
        True,
        "\n",
        ("<eoa>",),
    ),
    _T("internlm2_chat", *_IM, ("<|im_end|>",)),
    _T(
        "moss_sft",
        "{system}\n",
        "<|Human|>: {input}<eoh>\n",
        sep="\n",
        stop_words=("<eoc>", "<eom>"),
    ),
    _T("llama2_chat", _LLAMA2_SYSTEM, "[INST] {input} [/INST]", sep="\n"),
    _T("code_llama_chat", "{system}\n", "[INST] {input} [/INST]"),
    _T("chatglm2", "{system}\n", "[Round {round}]\n\n问：{input}\n\n答：", sep="\n\n"),
    _T("chatglm3", "<|system|>\n{system}", "<|user|>\n{input}<|assistant|>\n", sep="\n"),
    _T("qwen_chat", *_IM, _QWEN_STOPS),
    _T("baichuan_chat", "{system}\n", "<reserved_102>{input}<reserved_103>", sep="\n"),
    _T("baichuan2_chat", "{system}\n", "<reserved_106>{input}<reserved_107>", sep="\n"),
    _T("wizardlm", *_VICUNA, sep="\n"),
    _T(
        "wizardcoder", _WIZARDCODER_SYSTEM, "### Instruction:\n{input}\n\n### Response:", sep="\n\n"
    ),
    _T("vicuna", *_VICUNA, sep="\n"),
    _T("deepseek_coder", *_DEEPSEEK_CODER, sep="\n"),
    _T("deepseekcoder", *_DEEPSEEK_CODER, sep="\n"),
    _T("deepseek_moe", *_INST, sep="\n"),
    _T(
        "deepseek_v2",
        "{system}\n\n",
        "User: {input}\n\nAssistant: ",
        "<｜end▁of▁sentence｜>",
        True,
        stop_words=("<｜end▁of▁sentence｜>",),
    ),
    _T("mistral", *_INST, sep="\n"),
    _T("mixtral", *_INST, sep="\n"),
    _T("minicpm", _BARE_SYSTEM, "<用户> {input} <AI>", sep="\n"),
    _T("minicpm3", *_IM, _QWEN_STOPS),
    _T(
        "gemma",
        "<start_of_turn>system\n{system}<end_of_turn>\n",
        "<start_of_turn>user\n{input}<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>",
        False,
        "\n",
        ("<end_of_turn>",),
    ),
    _T(
        "cohere_chat",
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{system}<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{input}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        True,
        stop_words=("<|END_OF_TURN_TOKEN|>",),
    ),
    _T(
        "llama3_chat",
        "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>\n\n{input}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        True,
        stop_words=("<|eot_id|>",),
    ),
    _T(
        "phi3_chat",
        "<|system|>\n{system}<|end|>\n",
        "<|user|>\n{input}<|end|>\n<|assistant|>\n",
        "<|end|>",
        True,
        "\n",
        ("<|end|>",),
    ),
)

TEMPLATES: dict[str, PromptTemplate] = {template.name: template for template in _ALL}

# The system texts that XTuner's dataset formats put in front of a row, byte for byte. The user of
# moss_sft fills `{bot_name}`.
SYSTEM_TEMPLATES: dict[str, str] = {
    "moss_sft": (
        "You are an AI assistant whose name is {bot_name}.\n"
        "Capabilities and tools that {bot_name} can possess.\n"
        "- Inner thoughts: enabled.\n"
        "- Web search: enabled. API: Search(query)\n"
        "- Calculator: enabled. API: Calculate(expression)\n"
        "- Equation solver: enabled. API: Solve(equation)\n"
        "- Text-to-image: disabled.\n"
        "- Image edition: disabled.\n"
        "- Text-to-speech: disabled.\n"
    ),
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n"
    ),
    "arxiv_gentile": (
        "If you are an expert in writing papers, please generate a good paper title for this paper "
        "based on other authors' descriptions of their abstracts.\n"
    ),
    "colorist": (
        "You are a professional color designer. Please provide the corresponding colors based on "
        "the description of Human.\n"
    ),
    "coder": (
        "You are a professional programer. Please provide the corresponding code based on the "
        "description of Human.\n"
    ),
    "lawyer": "你现在是一名专业的中国律师，请根据用户的问题给出准确、有理有据的回复。\n",
    "medical": "如果你是一名医生，请根据患者的描述回答医学问题。\n",
    "sql": (
        "If you are an expert in SQL, please generate a good SQL Query for Question based on the "
        "CREATE TABLE statement.\n"
    ),
}


def get_template(name: str | Mapping[str, Any]) -> PromptTemplate:
    """The template called `name`, or the one whose fields are the mapping `name`.

    Raises TemplateError, with the nearest name, when there is none.

    >>> get_template("qwen_chat").suffix
    '<|im_end|>'
    """
    if isinstance(name, Mapping):
        return PromptTemplate.from_dict(name)
    try:
        return TEMPLATES[name]
    except KeyError:
        raise TemplateError(
            "core.no_such_template",
            name=name, hint=nearest(name, TEMPLATES), known=list(TEMPLATES),
        ) from None  # fmt: skip
