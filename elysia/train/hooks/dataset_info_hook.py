"""Shows, before the first step, what text is learned: the first samples as the model will see them."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from elysia.data.tokenize.encoder import IGNORE


class DatasetInfoHook(Hook):  # type: ignore[misc]
    """Args: `samples`, how many to show. Learned text is green, context plain."""

    def __init__(self, samples: int = 1) -> None:
        self.samples = samples

    def before_train(self, runner: Any) -> None:
        if runner.rank:
            return
        data = runner.train_dataloader.dataset
        tokens, labelled = int(data.tokens.lengths.sum()), int(data.tokens.labelled.sum())
        runner.logger.info(
            "%d rows in %d packs: %d tokens, %d of them learned (%.0f %%); %d steps an epoch, %d in all",
            len(data.tokens) // data.each, len(data), tokens, labelled, 100 * labelled / max(tokens, 1),
            runner.train_loop.steps_per_epoch, runner.max_iters,
        )  # fmt: skip
        for index in range(min(self.samples, len(data.tokens))):
            ids, labels = data.tokens[index]
            runner.logger.info(
                "Sample %d:\n%s", index + 1, colour_learned(ids, labels, data.tokenizer)
            )


def colour_learned(ids: Any, labels: Any, tokenizer: Any) -> str:
    """The text of `ids`; runs of learned tokens in green.

    Runs are decoded whole: a character may be spread over several tokens.
    """
    text, start = "", 0
    for end in range(1, len(ids) + 1):
        learned = labels[start] != IGNORE
        if end < len(ids) and (labels[end] != IGNORE) == learned:
            continue
        run = tokenizer.decode([int(i) for i in ids[start:end]], skip_special_tokens=False)
        text += f"\x1b[32m{run}\x1b[0m" if learned else run
        start = end
    return text
