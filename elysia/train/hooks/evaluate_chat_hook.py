"""Lets the model answer a few questions while it trains, into `vis_data/eval_outputs_iter_N.txt`.

Greedy, and without a trace in the training's randomness. Knows nothing of how a reply is judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from elysia.core.messages import Message
from elysia.core.templates import get_stop_words, get_template
from elysia.data.tokenize.encoder import encode_prompt
from elysia.models import loading
from elysia.models.batch_generate import generate_batch
from elysia.train.engine import rng


class EvaluateChatHook(Hook):  # type: ignore[misc]
    """Args as XTuner names them: `evaluation_inputs`, `every_n_iters`, `system`, `prompt_template`."""

    priority = "LOW"

    def __init__(
        self,
        tokenizer: str,
        evaluation_inputs: list[str],
        every_n_iters: int,
        prompt_template: str | dict[str, Any],
        system: str = "",
        max_new_tokens: int = 100,
        hub: str = "huggingface",
        eos_token: str = "",
    ) -> None:
        self.tokenizer = loading.load_tokenizer(loading.resolve_model(tokenizer, hub))
        loading.set_eos_token(self.tokenizer, eos_token)
        self.inputs, self.interval = evaluation_inputs, every_n_iters
        self.template, self.system = get_template(prompt_template), system
        self.max_new_tokens = max_new_tokens

    def before_train(self, runner: Any) -> None:
        if runner.iter == 0:
            self._ask(runner, 0)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        done = runner.iter + 1
        if done % self.interval == 0 or done == runner.max_iters:
            self._ask(runner, done)

    def _ask(self, runner: Any, step: int) -> None:
        bare = runner.strategy.unwrapped_model
        bare.eval()
        with torch.no_grad(), rng.preserve_rng_state(), bare._autocast():
            said = [(question, self._reply(bare.llm, question)) for question in self.inputs]
        bare.train()
        if runner.rank:
            return
        text = "\n".join(f"User: {q}\nReply: {r}\n" for q, r in said)
        target = Path(runner.log_dir) / "vis_data" / f"eval_outputs_iter_{step}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        runner.logger.info("Evaluation chats after step %d:\n%s", step, text)

    def _reply(self, model: Any, question: str) -> str:
        talk = [Message("system", self.system)] if self.system else []
        talk.append(Message("user", question))
        # One at a time: a reply is then the one that chat gives, to the bit.
        [reply] = generate_batch(
            model,
            self.tokenizer,
            [encode_prompt(talk, self.template, self.tokenizer)],
            stops=[get_stop_words(self.template)],
            max_new_tokens=[self.max_new_tokens],
        )
        return reply.strip()
