"""A few rows, and a run's settings on the tiny model, for the tests of training."""

import json

import pytest

from tests.preloaded import preloaded

# A program of its own, which imports what only some machines have; --doctest-modules would, too.
collect_ignore = ["kernels/interpreted.py"]

QUESTIONS = [
    "你好",
    "你是谁",
    "今天天气怎么样",
    "你喜欢什么花",
    "一加一等于几",
    "What is this",
    "Tell me a joke",
]


@pytest.fixture(scope="session")
def preloaded_python():
    """A Python that has imported what training needs; see tests/preloaded.py."""
    with preloaded() as python:
        yield python


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory):
    """24 dialogues of one to three turns."""
    rows = [
        {
            "conversation": [
                {
                    "input": f"{QUESTIONS[(i + j) % 7]}，第{i}次？",
                    "output": f"这是第{i}个回答，" * (1 + (i + j) % 4),
                }
                for j in range(1 + i % 3)
            ]
        }
        for i in range(24)
    ]
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False))
    return path


@pytest.fixture
def plain_settings(tiny_internlm2, rows_file):
    """Settings of a run of seconds: LoRA with dropout in float32, three steps an epoch."""
    return {
        "pretrained_model_name_or_path": str(tiny_internlm2),
        "data_path": str(rows_file),
        "prompt_template": "internlm2_chat",
        "method": "lora",
        "lora_r": 4,
        "lora_dropout": 0.2,
        "dtype": "float32",
        "max_length": 256,
        "accumulative_counts": 2,
        "max_epochs": 2,
        "lr": 1e-2,
        "save_steps": 2,
        "save_total_limit": 0,
        "logging_interval": 1,
        "evaluation_freq": 2,
        "evaluation_max_new_tokens": 4,
        "gradient_checkpointing": False,
    }


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    """18 preference pairs, which prefer one way of ending a reply."""
    rows = [
        {
            "conversations": [{"from": "human", "value": f"{QUESTIONS[i % 7]}，第{i}次？"}],
            "chosen": {"from": "gpt", "value": f"这是第{i}个回答，" * (1 + i % 3) + "好呀！"},
            "rejected": {"from": "gpt", "value": f"第{i}个。" * (1 + i % 4)},
        }
        for i in range(18)
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.json"
    path.write_text(json.dumps(rows, ensure_ascii=False))
    return path


@pytest.fixture
def pair_settings(plain_settings, pairs_file):
    """As `plain_settings`, for DPO."""
    return plain_settings | {
        "data_path": str(pairs_file),
        "dataset_format": "preference_sharegpt",
        "objective": "dpo",
    }


@pytest.fixture(scope="session")
def persona_files(tmp_path_factory):
    """A card, and few rows of the character and of others."""
    folder = tmp_path_factory.mktemp("persona")
    card = {"spec": "chara_card_v2", "spec_version": "2.0", "data": {"name": "爱莉希雅"}}
    rows = {
        name: [{"conversation": [{"input": ask.format(n), "output": say.format(n)}]} for n in range(9)]
        for name, ask, say in (
            ("held", "第{}天好吗？", "这是第{}个回答，嘻嘻～"), ("general", "{}加一？", "答案是{}再加一。"),
        )
    }  # fmt: skip
    for name, value in {"card": card, **rows}.items():
        (folder / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False))
    return {
        "persona": str(folder / "card.json"),
        "SYSTEM": "",
        "persona_heldout": str(folder / "held.json"),
        "persona_general": str(folder / "general.json"),
        "persona_freq": 2,
        "persona_limit": 6,
    }
