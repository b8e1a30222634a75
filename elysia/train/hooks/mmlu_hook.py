"""MMLU while training: which of A, B, C, D the model finds likeliest after each question.

Rows are `input` (the whole prompt, its five solved examples included), `output` (the letter) and
`subject`. Source: Hendrycks et al. 2020, https://arxiv.org/abs/2009.03300. Knows nothing of how the
prompts were made.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from elysia.core.errors import DataError
from elysia.data.formats.fields import require_text
from elysia.data.readers.row_reader import read_rows
from elysia.models import loading
from elysia.train.distributed.strategy import all_gather_object
from elysia.train.engine import rng

LETTERS = "ABCD"


class MMLUHook(Hook):  # type: ignore[misc]
    """Args: `path` of the questions, `interval` in steps, `max_length` in tokens (the end of a
    longer prompt is kept: the question is there)."""

    priority = "LOW"

    def __init__(
        self, path: str, interval: int, tokenizer: str, max_length: int, hub: str = "huggingface"
    ) -> None:
        self.interval, self.max_length = interval, max_length
        self.tokenizer = loading.load_tokenizer(loading.resolve_model(tokenizer, hub))
        self.letters = [self._ids(letter)[0] for letter in LETTERS]
        self.rows = [self._question(row.value, path, row.number) for row in read_rows(path)]

    def _question(self, row: dict[str, Any], path: str, number: int) -> tuple[str, str, str]:
        """(subject, prompt, letter)."""
        try:
            letter = require_text(row, "output").strip()
            if letter not in LETTERS or len(letter) != 1:
                raise DataError(f"'output' must be one of A, B, C and D, not {letter!r}.")
            return require_text(row, "subject", optional=True), require_text(row, "input"), letter
        except DataError as error:
            raise DataError(f"{path}, row {number}: {error}") from None

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def before_train(self, runner: Any) -> None:
        if runner.iter == 0:
            self._measure(runner, 0)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        done = runner.iter + 1
        if done % self.interval == 0 or done == runner.max_iters:
            self._measure(runner, done)

    def _measure(self, runner: Any, step: int) -> None:
        """Log the share of right answers, in all and by subject."""
        bare = runner.strategy.unwrapped_model
        bare.eval()
        mine = self.rows[runner.rank :: runner.world_size]
        rounds = -(-len(self.rows) // runner.world_size)
        with torch.no_grad(), rng.preserve_rng_state(), bare._autocast():
            # Who has no question left asks one again: ZeRO-3 gathers weights together.
            answers = [self._answer(bare.llm, (mine or self.rows)[i % len(mine or self.rows)][1])
                       for i in range(rounds)]  # fmt: skip
        bare.train()
        found = [(row[0], answer == row[2]) for row, answer in zip(mine, answers, strict=False)]
        right: dict[str, list[bool]] = defaultdict(list)
        for subject, hit in (pair for part in all_gather_object(found) for pair in part):
            right[subject].append(hit)
        every = [hit for hits in right.values() for hit in hits]
        share = sum(every) / len(every)
        runner.message_hub.update_scalar("mmlu/accuracy", share)
        runner.visualizer.add_scalars({"mmlu_accuracy": share}, step=step)
        runner.logger.info("MMLU after step %d: %.1f %% of %d", step, 100 * share, len(every))
        if runner.rank == 0:
            self._write(Path(runner.log_dir) / "vis_data" / f"mmlu_iter_{step}.txt", right)

    def _answer(self, model: Any, prompt: str) -> str:
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        ids = self._ids(prompt)[-(self.max_length - len(start)) :]
        device = next(model.parameters()).device
        given = torch.tensor([start + ids], device=device)
        logits = model(input_ids=given, use_cache=False).logits[0, -1]
        return LETTERS[int(logits[self.letters].argmax())]

    @staticmethod
    def _write(target: Path, right: dict[str, list[bool]]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            f"{subject or 'all'}\t{100 * sum(hits) / len(hits):.1f}\t{len(hits)}"
            for subject, hits in sorted(right.items())
        ]
        target.write_text("\n".join(["subject\taccuracy\tquestions", *lines]) + "\n", "utf-8")
