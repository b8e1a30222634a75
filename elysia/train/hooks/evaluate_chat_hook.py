"""Lets the model answer a few questions while it trains, into `vis_data/eval_outputs_iter_N.txt`.

Greedy, and without a trace in the training's randomness. Knows nothing of how a reply is judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from elysia.core.messages import Message
from elysia.core.templates import all_stop_words, get_template
from elysia.data.tokenize import encode_prompt
from elysia.models import load
from elysia.train import rng


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
        self.tokenizer = load.load_tokenizer(load.resolve(tokenizer, hub))
        load.end_with(self.tokenizer, eos_token)
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
        bare = runner.strategy.bare
        bare.eval()
        with torch.no_grad(), rng.untouched(), bare._autocast():
            replies = [(question, self._reply(bare.llm, question)) for question in self.inputs]
        bare.train()
        if runner.rank:
            return
        text = "\n".join(f"User: {q}\nReply: {r}\n" for q, r in replies)
        target = Path(runner.log_dir) / "vis_data" / f"eval_outputs_iter_{step}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        runner.logger.info("Evaluation chats after step %d:\n%s", step, text)

    def _reply(self, model: Any, question: str) -> str:
        talk = [Message("system", self.system)] if self.system else []
        talk.append(Message("user", question))
        ids = encode_prompt(talk, self.template, self.tokenizer)
        device = next(model.parameters()).device
        prompt = torch.tensor([ids], device=device)
        stops = list(all_stop_words(self.template))
        made = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=self.tokenizer.eos_token_id,
            stop_strings=stops or None,
            tokenizer=self.tokenizer,
        )[0, prompt.shape[1] :]
        text: str = self.tokenizer.decode(made, skip_special_tokens=True)
        for stop in stops:
            text = text.split(stop)[0]
        return text.strip()
