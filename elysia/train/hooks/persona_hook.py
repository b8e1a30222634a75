"""The quick part of the persona scorecard while a model trains, and early stopping on its trade-off.

Measured before the first step (the base), every `interval` steps and at the end: scalars, the log, and a line
of `persona.jsonl` in the work dir, from which a resumed run continues. The training's random state is kept as
it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elysia.core.errors import CheckpointError
from elysia.core.files import write_atomic
from elysia.core.messages import Conversation, Message
from elysia.core.persona import Persona
from elysia.data.tokenize.encoder import IGNORE
from elysia.evaluate.early_stopping import (
    DEFAULT_WEIGHTS,
    MEASURE_NAMES,
    explain_stop,
    find_best,
    format_weights,
    weighted_score,
)
from elysia.evaluate.eval_data import read_reply_examples
from elysia.evaluate.likelihood import ReplyScorer
from elysia.evaluate.scorecard import EvaluationData, compare_to_base, quick_eval
from elysia.models import loading
from elysia.models.chat_format import load_template
from elysia.train.distributed.comm import all_gather_object, barrier
from elysia.train.engine import rng
from elysia.train.hooks.evaluation_hooks import EvaluationHook, generate_replies

HISTORY_FILE = "persona.jsonl"
MAX_LEARNED_CHARACTERS = 500_000  # of the training's texts, in which copies are searched


class PersonaHook(EvaluationHook):
    """Args: `persona`, a card; `heldout` and `general` ('': none), files of rows never trained on,
    of which `limit` replies each are read; `system`, `prompt_template` and `max_length` as in
    training; `tradeoff`, weights of measures; `patience`, how many measurements may pass without a
    better one (0: any number)."""

    priority = "LOW"  # after what it reads, before the checkpoint

    def __init__(
        self,
        interval: int,
        tokenizer: str,
        prompt_template: str | dict[str, Any],
        persona: str,
        heldout: str,
        general: str = "",
        limit: int = 24,
        system: str = "",
        max_length: int = 2048,
        tradeoff: dict[str, float] | None = None,
        patience: int = 0,
        max_new_tokens: int = 100,
        hub: str = "huggingface",
        eos_token: str = "",
    ) -> None:
        self.tokenizer = loading.load_tokenizer(loading.resolve_model(tokenizer, hub))
        loading.set_eos_token(self.tokenizer, eos_token)
        self.template, self.system = load_template(prompt_template), system
        self.interval, self.patience = interval, patience
        self.max_length, self.max_new_tokens = max_length, max_new_tokens
        self.weights = dict(tradeoff or DEFAULT_WEIGHTS)
        self.persona = Persona.load(persona)
        self.heldout = read_reply_examples(heldout, limit)
        self.general = read_reply_examples(general, limit) if general else []
        self.history: list[tuple[int, dict[str, float]]] = []

    def before_train(self, runner: Any) -> None:
        """Measure the base; a resumed run reads what was measured before."""
        self.eval_data = EvaluationData(
            self.persona,
            self.heldout,
            self.general,
            collect_learned_texts(runner.train_dataloader.dataset),
            [reply for _, reply in self.general],
        )
        if runner.iter == 0:
            self._add_measurement(runner, 0)
            return
        self._load_history(runner)
        best = find_best(self.history, self.weights)
        if self.patience and best is not None:
            runner.train_loop.best_step = self.history[best][0]
        self._stop_if_due(runner)

    def evaluate(self, runner: Any, step: int) -> None:
        self._add_measurement(runner, step)
        best = find_best(self.history, self.weights)
        if self.patience and best == len(self.history) - 1:
            runner.train_loop.best_step = step  # the checkpoint hook, which comes later, saves it
        self._stop_if_due(runner)

    def _add_measurement(self, runner: Any, step: int) -> None:
        """Measure, and add the result to the history and its file, the scalars and the log."""
        start = time.perf_counter()
        measures = self._measure(runner)
        if step:
            changes = compare_to_base(self.history[0][1], measures)
            measures |= {name: value for name, value in changes.items() if value is not None}
        # Devices may differ in the last bit; all processes must decide alike.
        measures = all_gather_object(_select_named(measures))[0]
        self.history.append((step, measures))
        self._write_history(runner)
        runner.message_hub.update_info("persona", measures)
        scalars = {f"persona_{name}": value for name, value in measures.items()}
        score = weighted_score(measures, self.weights)
        runner.visualizer.add_scalars({**scalars, "persona_tradeoff": score}, step=step)
        values = ", ".join(f"{name} {value:.4g}" for name, value in measures.items())
        runner.logger.info(
            "Persona after step %d (%.1f s): %s = %.4g; %s",
            step, time.perf_counter() - start, format_weights(self.weights), score, values,
        )  # fmt: skip

    def _measure(self, runner: Any, *, of_base: bool = False) -> dict[str, float]:
        """The measures of the model as it is, or of the base under its adapter. Every process takes
        all of them: ZeRO-3 gathers weights together."""
        model = runner.strategy.unwrapped_model
        model.eval()
        base = model.llm.disable_adapter() if of_base else nullcontext()
        with torch.no_grad(), rng.preserve_rng_state(), model.autocast(), base:
            scorer = ReplyScorer(
                model.llm,
                self.tokenizer,
                self.template,
                system=self.system,
                longest=self.max_length,
            )
            measures = quick_eval(
                scorer, lambda chats: self._generate(model.llm, chats), self.eval_data
            )
        model.train()
        return measures

    def _generate(self, model: Any, chats: Sequence[Conversation]) -> list[str]:
        system = [Message("system", self.system)] if self.system else []
        chats = [chat if chat[0].role == "system" else [*system, *chat] for chat in chats]
        return generate_replies(model, self.tokenizer, self.template, chats, self.max_new_tokens)

    def _load_history(self, runner: Any) -> None:
        """Read what was measured up to the step from which the run continues."""
        path = Path(runner._resume).parent / HISTORY_FILE
        if path.exists():
            self.history = [
                (step, measures) for step, measures in read_history(path) if step <= runner.iter
            ]
        if not self.history or self.history[0][0]:
            if not runner.strategy.unwrapped_model.adapted:
                raise CheckpointError("train.history_without_base", path=path)
            base = all_gather_object(self._measure(runner, of_base=True))[0]
            self.history.insert(0, (0, _select_named(base)))
        self._write_history(runner)

    def _write_history(self, runner: Any) -> None:
        if runner.rank == 0:
            lines = [json.dumps({"step": step, **measures}) for step, measures in self.history]
            write_atomic(Path(runner.work_dir) / HISTORY_FILE, "\n".join(lines) + "\n")
        barrier()

    def _stop_if_due(self, runner: Any) -> None:
        loop, reason = runner.train_loop, explain_stop(self.history, self.weights, self.patience)
        if not reason or self.history[-1][0] >= runner.max_iters:
            return  # a run that is over anyway is not stopped early
        loop.stop_training, loop.stop_reason = True, f"Stopped early: {reason}."
        runner.logger.info(
            "%s iter_%d.pth is kept as best_checkpoint. To train on from the last checkpoint, raise "
            "persona_patience and resume.",
            loop.stop_reason, loop.best_step,
        )  # fmt: skip


def _select_named(measures: dict[str, float]) -> dict[str, float]:
    """The measures that a trade-off may weigh, in their order."""
    return {name: measures[name] for name in MEASURE_NAMES if name in measures}


def read_history(path: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, measures) of each line; CheckpointError when one is damaged."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [(int(row.pop("step")), {k: float(v) for k, v in row.items()}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError("train.history_unreadable", path=path, reason=error) from error


def collect_learned_texts(data: Any) -> list[str]:
    """Texts that a training learns, each once, up to MAX_LEARNED_CHARACTERS: every run of learned tokens
    of each sample; of pairs, the preferred replies."""
    texts: dict[str, None] = {}
    room = MAX_LEARNED_CHARACTERS
    for index in range(0, len(data.tokens), data.group_size):
        ids, labels = data.tokens[index]
        edges = np.flatnonzero(np.diff(np.asarray(labels) != IGNORE, prepend=False, append=False))
        for start, end in edges.reshape(-1, 2):
            run = [int(token) for token in ids[start:end]]
            text = data.tokenizer.decode(run, skip_special_tokens=True).strip()
            if text and text not in texts:
                texts[text] = None
                room -= len(text)
        if room < 0:
            break
    return list(texts)
