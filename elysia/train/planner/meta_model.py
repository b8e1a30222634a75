"""The model that is trained, with its adapters, as shapes without content: nothing is read or held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from elysia.models import loading
from elysia.train.methods.sft import SupervisedFinetune


class MetaModel(SupervisedFinetune):
    """SupervisedFinetune on the "meta" device, for counting; it cannot be called.

    A base of 4 bits has whole linear layers here. Args: `objective`, "sft", "dpo", "orpo" or "reward";
    others as of SupervisedFinetune.
    """

    def __init__(self, *, objective: str = "sft", **kwargs: Any) -> None:
        self.is_reward_model = objective == "reward"
        with torch.device("meta"):
            super().__init__(**{**kwargs, "llm": kwargs["llm"] | {"bits": None}, "device": "cpu"})

    def load_base(
        self, llm: dict[str, Any], dtype: torch.dtype, device: str, attention: str
    ) -> Any:
        config = loading.load_config(Path(llm["path"]))
        kind: Any = AutoModelForCausalLM
        if self.is_reward_model:
            kind, config.num_labels = AutoModelForSequenceClassification, 1
        return kind.from_config(
            config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )

    def has_linear_head(self) -> bool:
        """Nothing can be tried out without weights; the head is taken as a plain one."""
        return True

    def linear_weights(self) -> list[torch.Tensor]:
        """The body's own linear weights, without adapters and head: 4-bit training holds them in NF4."""
        body = self.causal.get_decoder()
        return [
            module.weight
            for name, module in body.named_modules()
            if isinstance(module, nn.Linear) and "lora_" not in name
        ]
