"""Which setting is named when a training does not fit."""

import pytest

from elysia.train.config.settings import build_settings
from elysia.train.planner.suggest import suggest_change

BASE = {"pretrained_model_name_or_path": "m", "data_path": "d", "gradient_checkpointing": True}


def settings(**more):
    return build_settings(BASE | more, "c")


@pytest.mark.parametrize(
    "more, needed, said",
    [
        ({"gradient_checkpointing": False}, {"gradient_checkpointing": True}, "gradient_checkpointing = True"),
        ({"batch_size": 4, "accumulative_counts": 2}, {"batch_size": 1, "accumulative_counts": 8},
         "batch_size = 1, accumulative_counts = 8"),
        ({"method": "full"}, {"method": "lora"}, "method = 'lora'"),
        ({"method": "lora"}, {"method": "qlora"}, "method = 'qlora'"),
        ({"method": "lora", "use_dora": True}, {"method": "qlora"}, "method = 'qlora'"),
        ({"max_length": 4096}, {"max_length": 2048}, "max_length = 2048"),
    ],
)  # fmt: skip
def test_the_first_change_that_suffices_is_named(more, needed, said):
    def fits(changed):
        return all(getattr(changed, name) == value for name, value in needed.items())

    assert suggest_change(settings(**more), fits) == f"Set {said}: then it fits."


def test_changes_that_only_suffice_together_are_named_together():
    def fits(changed):
        return changed.method == "qlora" and changed.max_length == 1024

    said = suggest_change(settings(method="lora", max_length=2048), fits)
    assert said.startswith("No setting alone suffices.")
    assert "method = 'qlora', max_length = 1024" in said


def test_where_nothing_helps_that_is_said():
    assert suggest_change(settings(max_length=256), lambda _: False).startswith(
        "No setting makes it fit."
    )
