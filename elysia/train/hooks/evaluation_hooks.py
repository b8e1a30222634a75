"""Evaluations while a model trains: the loss on held-out rows, a few chats, and MMLU.

Each measures before the first step, every so many steps and at the end, with the training's random state kept
as it was. The persona's scorecard is in `persona_hook.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS

from elysia.core.errors import DataError
from elysia.core.messages import Conversation, Message
from elysia.core.templates import ChatTemplate, get_stop_words
from elysia.data.formats.fields import require_text
from elysia.data.readers.row_reader import read_rows
from elysia.data.tokenize.encoder import encode_prompt
from elysia.models import loading
from elysia.models.batch_generate import generate_batch
from elysia.models.chat_format import load_template
from elysia.train.data.dataset import Pack, PackedDataset
from elysia.train.distributed.comm import all_gather_object, all_reduce_sum
from elysia.train.engine import rng
from elysia.train.engine.loop import count_units

LETTERS = "ABCD"


class EvaluationHook(Hook, ABC):  # type: ignore[misc]
    """Calls `evaluate` before the first step of a run (not of a resumed one), every `interval` steps, and at
    the end.
    """

    interval: int

    def before_train(self, runner: Any) -> None:
        if runner.iter == 0:
            self.evaluate(runner, 0)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        step = runner.iter + 1
        if step % self.interval == 0 or step == runner.max_iters:
            self.evaluate(runner, step)

    @abstractmethod
    def evaluate(self, runner: Any, step: int) -> None:
        """Measure the model after `step` steps and log it; every process calls it."""


def build_collate(config: dict[str, Any]) -> Callable[[list[Pack]], dict[str, Any]]:
    """The training's collate function from its config: `type`, a dotted path, and arguments."""
    arguments = {name: value for name, value in config.items() if name != "type"}
    return partial(FUNCTIONS.get(config["type"]), **arguments)


def generate_replies(
    model: Any,
    tokenizer: Any,
    template: ChatTemplate,
    chats: Sequence[Conversation],
    max_new_tokens: int,
) -> list[str]:
    """The greedy reply to each chat, without its stop word."""
    prompts = [encode_prompt(chat, template, tokenizer) for chat in chats]
    replies = generate_batch(
        model,
        tokenizer,
        prompts,
        stops=[get_stop_words(template)] * len(prompts),
        max_new_tokens=[max_new_tokens] * len(prompts),
    )
    return [reply.strip() for reply in replies]


class EvalLossHook(EvaluationHook):
    """Mean loss per labelled token (or pair) of rows that are never trained on.

    Args: `dataset`, arguments of PackedDataset for the held-out rows; `collate`, as in training.
    """

    priority = "ABOVE_NORMAL"

    def __init__(self, interval: int, dataset: dict[str, Any], collate: Any) -> None:
        self.interval = interval
        self.data = PackedDataset(**dataset)
        self.collate = build_collate(collate)

    def evaluate(self, runner: Any, step: int) -> None:
        loss, metrics = self._measure(runner)
        if step == 0:
            runner.message_hub.update_info("first", {"heldout_loss": loss})
        runner.message_hub.update_scalar("heldout/loss", loss)
        scalars = {f"heldout_{name}": value for name, value in metrics.items()}
        runner.visualizer.add_scalars({"heldout_loss": loss, **scalars}, step=step)
        rows = len(self.data.tokens) // self.data.group_size
        others = "".join(f", {name} {value:.4f}" for name, value in metrics.items())
        runner.logger.info(
            "Held-out loss after step %d: %.4f (%d rows)%s", step, loss, rows, others
        )

    def _measure(self, runner: Any) -> tuple[float, dict[str, float]]:
        """(loss, the model's other metrics); every process takes its share of the packs."""
        model, world = runner.model, runner.world_size
        model.eval()
        loss_sum, units = 0.0, 0
        sums: Counter[str] = Counter()
        with torch.no_grad(), rng.preserve_rng_state():
            for index in range(runner.rank, -(-len(self.data) // world) * world, world):
                # ZeRO-3 gathers weights together: a process without a pack runs a dummy one.
                pack = self.data[index if index < len(self.data) else ~0]
                batch = self.collate([pack])
                loss_sum += float(model(batch))
                units += count_units(batch)
                sums.update(runner.strategy.unwrapped_model.metrics)
        model.train()
        total = max(all_reduce_sum(units), 1)
        metrics = {name: all_reduce_sum(value) / total for name, value in sums.items()}
        return all_reduce_sum(loss_sum) / total, metrics


class EvaluateChatHook(EvaluationHook):
    """Greedy replies to a few questions, into `vis_data/eval_outputs_iter_N.txt`.

    Args as XTuner names them: `evaluation_inputs`, `every_n_iters`, `system`, `prompt_template`.
    """

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
        self.template, self.system = load_template(prompt_template), system
        self.max_new_tokens = max_new_tokens

    def evaluate(self, runner: Any, step: int) -> None:
        model = runner.strategy.unwrapped_model
        model.eval()
        with torch.no_grad(), rng.preserve_rng_state(), model.autocast():
            replies = [self._generate_reply(model.llm, question) for question in self.inputs]
        model.train()
        if runner.rank:
            return
        chats = zip(self.inputs, replies, strict=True)
        text = "\n".join(f"User: {question}\nReply: {reply}\n" for question, reply in chats)
        target = Path(runner.log_dir) / "vis_data" / f"eval_outputs_iter_{step}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        runner.logger.info("Evaluation chats after step %d:\n%s", step, text)

    def _generate_reply(self, model: Any, question: str) -> str:
        messages = [Message("system", self.system)] if self.system else []
        messages.append(Message("user", question))
        # One at a time: a reply is then the one that chat gives, to the bit.
        return generate_replies(
            model, self.tokenizer, self.template, [messages], self.max_new_tokens
        )[0]


class MMLUHook(EvaluationHook):
    """Which of A, B, C, D the model finds likeliest after each question.

    Rows are `input` (the whole prompt, its five solved examples included), `output` (the letter) and
    `subject`. Source: Hendrycks et al. 2020, https://arxiv.org/abs/2009.03300.

    Args: `path` of the questions, `interval` in steps, `max_length` in tokens (of a longer prompt the end is
    used: the question is there).
    """

    priority = "LOW"

    def __init__(
        self, path: str, interval: int, tokenizer: str, max_length: int, hub: str = "huggingface"
    ) -> None:
        self.interval, self.max_length = interval, max_length
        self.tokenizer = loading.load_tokenizer(loading.resolve_model(tokenizer, hub))
        self.letter_ids = [self._encode(letter)[0] for letter in LETTERS]
        self.rows = [_parse_question(row.value, path, row.number) for row in read_rows(path)]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def evaluate(self, runner: Any, step: int) -> None:
        """Log the share of right answers, in all and by subject."""
        model = runner.strategy.unwrapped_model
        model.eval()
        own_rows = self.rows[runner.rank :: runner.world_size]
        # ZeRO-3 gathers weights together: a process without a question asks one again.
        count = -(-len(self.rows) // runner.world_size)
        prompts = [prompt for _, prompt, _ in own_rows or self.rows]
        with torch.no_grad(), rng.preserve_rng_state(), model.autocast():
            answers = [self._answer(model.llm, prompts[i % len(prompts)]) for i in range(count)]
        model.train()
        own_results = [
            (subject, answer == letter)
            for (subject, _, letter), answer in zip(own_rows, answers, strict=False)
        ]
        by_subject: dict[str, list[bool]] = defaultdict(list)
        for subject, is_right in (pair for part in all_gather_object(own_results) for pair in part):
            by_subject[subject].append(is_right)
        results = [is_right for part in by_subject.values() for is_right in part]
        accuracy = sum(results) / len(results)
        runner.message_hub.update_scalar("mmlu/accuracy", accuracy)
        runner.visualizer.add_scalars({"mmlu_accuracy": accuracy}, step=step)
        runner.logger.info("MMLU after step %d: %.1f %% of %d", step, 100 * accuracy, len(results))
        if runner.rank == 0:
            target = Path(runner.log_dir) / "vis_data" / f"mmlu_iter_{step}.txt"
            _write_accuracies(target, by_subject)

    def _answer(self, model: Any, prompt: str) -> str:
        """The letter with the highest logit after `prompt`."""
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        ids = self._encode(prompt)[-(self.max_length - len(start)) :]
        device = next(model.parameters()).device
        input_ids = torch.tensor([start + ids], device=device)
        logits = model(input_ids=input_ids, use_cache=False).logits[0, -1]
        return LETTERS[int(logits[self.letter_ids].argmax())]


def _parse_question(row: dict[str, Any], path: str, number: int) -> tuple[str, str, str]:
    """(subject, prompt, letter); DataError naming the row otherwise."""
    try:
        letter = require_text(row, "output").strip()
        if letter not in LETTERS or len(letter) != 1:
            raise DataError("train.mmlu_letter", value=repr(letter))
        return require_text(row, "subject", optional=True), require_text(row, "input"), letter
    except DataError as error:
        raise DataError("train.in_row", path=path, row=number, error=error) from None


def _write_accuracies(target: Path, by_subject: dict[str, list[bool]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{subject or 'all'}\t{100 * sum(results) / len(results):.1f}\t{len(results)}"
        for subject, results in sorted(by_subject.items())
    ]
    target.write_text("\n".join(["subject\taccuracy\tquestions", *lines]) + "\n", "utf-8")
