"""The persona scorecard's cheap part while a model trains, and early stopping on its trade-off.

Before the first step (the base), every `interval` steps and at the end: scalars, the log, and a line
of `persona.jsonl` in the work dir, from which a resumed run goes on. Without a trace in the
training's randomness. Knows nothing of how a measure is taken.
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
from mmengine.hooks import Hook

from elysia.core.errors import CheckpointError
from elysia.core.files import write_atomic
from elysia.core.messages import Conversation, Message
from elysia.core.persona import Persona
from elysia.core.templates import get_stop_words, get_template
from elysia.data.tokenize.encoder import IGNORE, encode_prompt
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
from elysia.models.batch_generate import generate_batch
from elysia.train.distributed.strategy import all_gather_object, barrier
from elysia.train.engine import rng

HISTORY_FILE = "persona.jsonl"
MAX_LEARNED_CHARACTERS = 500_000  # characters of the training in which copies are looked for


class PersonaHook(Hook):  # type: ignore[misc]
    """Args: `persona`, a card; `heldout` and `general` ('': none), files of rows never trained on,
    of which `limit` replies each are read; `system`, `prompt_template` and `max_length` as in
    training; `tradeoff`, weights of measures; `patience`, how many measurements may pass without a
    better one (0: all)."""

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
        self.template, self.system = get_template(prompt_template), system
        self.interval, self.patience = interval, patience
        self.max_length, self.max_new_tokens = max_length, max_new_tokens
        self.weights = dict(tradeoff or DEFAULT_WEIGHTS)
        self.persona = Persona.load(persona)
        self.heldout = read_reply_examples(heldout, limit)
        self.general = read_reply_examples(general, limit) if general else []
        self.history: list[tuple[int, dict[str, float]]] = []

    def before_train(self, runner: Any) -> None:
        """Measure the base; of a resumed run, take back what was measured before."""
        self.material = EvaluationData(
            self.persona,
            self.heldout,
            self.general,
            collect_learned_texts(runner.train_dataloader.dataset),
            [reply for _, reply in self.general],
        )
        if runner.iter == 0:
            self._measure(runner, 0)
            return
        self._take_back(runner)
        best = find_best(self.history, self.weights)
        if self.patience and best is not None:
            runner.train_loop.best_step = self.history[best][0]
        self._stop_if_due(runner)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        done = runner.iter + 1
        if done % self.interval and done != runner.max_iters:
            return
        self._measure(runner, done)
        best = find_best(self.history, self.weights)
        if self.patience and best == len(self.history) - 1:
            runner.train_loop.best_step = done  # the checkpoint hook, which is later, keeps it
        self._stop_if_due(runner)

    def _measure(self, runner: Any, step: int) -> None:
        """Add a measurement: to the history and its file, the scalars and the log."""
        begun = time.perf_counter()
        own = self._taken(runner)
        if step:
            gained = compare_to_base(self.history[0][1], own)
            own |= {name: value for name, value in gained.items() if value is not None}
        # Devices may differ in the last bit; all must decide alike.
        own = all_gather_object({name: own[name] for name in MEASURE_NAMES if name in own})[0]
        self.history.append((step, own))
        self._write(runner)
        runner.message_hub.update_info("persona", own)
        scalars = {f"persona_{name}": value for name, value in own.items()}
        value = weighted_score(own, self.weights)
        runner.visualizer.add_scalars({**scalars, "persona_tradeoff": value}, step=step)
        told = ", ".join(f"{name} {value:.4g}" for name, value in own.items())
        runner.logger.info(
            "Persona after step %d (%.1f s): %s = %.4g; %s",
            step, time.perf_counter() - begun, format_weights(self.weights), value, told,
        )  # fmt: skip

    def _taken(self, runner: Any, *, of_base: bool = False) -> dict[str, float]:
        """The measures of the model as it is, or of what is under its adapter. Every process takes
        them all: ZeRO-3 gathers weights together."""
        bare = runner.strategy.unwrapped_model
        bare.eval()
        plain = bare.llm.disable_adapter() if of_base else nullcontext()
        with torch.no_grad(), rng.preserve_rng_state(), bare._autocast(), plain:
            reader = ReplyScorer(
                bare.llm, self.tokenizer, self.template, system=self.system, longest=self.max_length
            )
            found = quick_eval(reader, lambda talks: self._say(bare.llm, talks), self.material)
        bare.train()
        return found

    def _say(self, model: Any, talks: Sequence[Conversation]) -> list[str]:
        head = [Message("system", self.system)] if self.system else []
        asked = [talk if talk[0].role == "system" else [*head, *talk] for talk in talks]
        prompts = [encode_prompt(talk, self.template, self.tokenizer) for talk in asked]
        replies = generate_batch(
            model,
            self.tokenizer,
            prompts,
            stops=[get_stop_words(self.template)] * len(prompts),
            max_new_tokens=[self.max_new_tokens] * len(prompts),
        )
        return [reply.strip() for reply in replies]

    def _take_back(self, runner: Any) -> None:
        """What was measured up to the step from which the run goes on."""
        beside = Path(runner._resume).parent / HISTORY_FILE
        if beside.exists():
            self.history = [
                (step, measures) for step, measures in read_history(beside) if step <= runner.iter
            ]
        if not self.history or self.history[0][0]:
            if not runner.strategy.unwrapped_model.adapted:
                raise CheckpointError(
                    f"{beside} does not hold what the untrained model measured, and a fully trained "
                    "one no longer shows it: set persona_freq = 0, or start the run anew."
                )
            base = all_gather_object(self._taken(runner, of_base=True))[0]
            base = {name: base[name] for name in MEASURE_NAMES if name in base}
            self.history.insert(0, (0, base))
        self._write(runner)

    def _write(self, runner: Any) -> None:
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


def read_history(path: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, measures) of each line; CheckpointError when one is damaged."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [(int(row.pop("step")), {k: float(v) for k, v in row.items()}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): it holds what was measured so far. Put it back, or "
            "take it away, and the measuring begins anew."
        ) from error


def collect_learned_texts(data: Any) -> list[str]:
    """The first LEARNED characters of what a training learns: of each sample, every run of learned
    tokens. Of pairs, the preferred replies."""
    found: dict[str, None] = {}
    room = MAX_LEARNED_CHARACTERS
    for index in range(0, len(data.tokens), data.each):
        ids, labels = data.tokens[index]
        edges = np.flatnonzero(np.diff(np.asarray(labels) != IGNORE, prepend=False, append=False))
        for start, end in edges.reshape(-1, 2):
            run = [int(token) for token in ids[start:end]]
            text = data.tokenizer.decode(run, skip_special_tokens=True).strip()
            if text and text not in found:
                found[text] = None
                room -= len(text)
        if room < 0:
            break
    return list(found)
