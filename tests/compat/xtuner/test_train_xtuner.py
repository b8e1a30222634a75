"""A config in XTuner's form, trained to the end on a tiny model."""

import json

from elysia import cli
from elysia.train.launch import train

ROWS = [
    {"talk": [{"role": "user", "content": f"question {n}"},
              {"role": "assistant", "content": f"the answer is {n}"}]}
    for n in range(6)
]  # fmt: skip
OWN = (
    "base = 'owner/base'",
    "base = '{model}'\n\ndef own(row):\n    return openai_map_fn(dict(messages=row['talk']))\n",
)
MMLU = """
val_dataloader = dict(dataset=dict(type=process_hf_dataset, split='val',
    dataset=dict(type=load_dataset, path='json', data_files=dict(val='{mmlu}'))))
val_evaluator = dict(type='xtuner.evaluation.MMLUMetric', tokenizer=tokenizer)
"""


def test_an_xtuner_config_with_a_map_function_of_its_own_trains(config, tmp_path, tiny_llama):
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    questions = [{"input": f"{n}?", "output": "A", "subject": "sums"} for n in range(3)]
    (tmp_path / "mmlu.json").write_text(json.dumps(questions))
    source = config(
        ("dataset_map_fn=openai_map_fn", "dataset_map_fn=own"),
        (OWN[0], OWN[1].format(model=tiny_llama)),
        ("'rows.json'", repr(str(tmp_path / "rows.json"))),
        more=MMLU.format(mmlu=tmp_path / "mmlu.json"),
    )
    work = tmp_path / "work"
    assert (
        train(str(source), work_dir=str(work), cfg_options={"gradient_checkpointing": False}) == 0
    )
    card = json.loads((work / "run_card.json").read_text())
    assert card["metrics"]["steps"] == 2 and card["template"]["name"] == "internlm2_chat"
    assert (work / "iter_2.pth").exists()
    [scores] = work.glob("*/vis_data/mmlu_iter_2.txt")
    assert scores.read_text().splitlines()[1].startswith("sums\t")


def test_a_dpo_config_of_xtuners_trains_two_steps_by_the_command_line(
    pairs_config, tmp_path, tiny_internlm2
):
    def talk(question, answer):
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    rows = [
        {"chosen": talk(f"{n}?", f"gladly, {n}"), "rejected": talk(f"{n}?", f"no {n}")}
        for n in range(4)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    source = pairs_config(
        ("'owner/internlm2-base'", repr(str(tiny_internlm2))),
        ("path='owner/pairs'", f"path='json', data_files={str(tmp_path / 'rows.json')!r}"),
        ("pretrained_model_name_or_path=base))",
         "pretrained_model_name_or_path=base), lora=dict(type=LoraConfig, r=4, task_type='CAUSAL_LM'))"),
    )  # fmt: skip
    work = tmp_path / "work"
    options = ["max_steps=2", "dtype=float32", "gradient_checkpointing=False", "logging_interval=1"]
    command = ["train", str(source), "--work-dir", str(work), "--cfg-options", *options]
    assert cli.main(command) == 0
    card = json.loads((work / "run_card.json").read_text())
    assert card["metrics"]["steps"] == 2 and (work / "iter_2.pth").exists()
    [log] = work.glob("*/vis_data/scalars.json")
    losses = [json.loads(line) for line in log.read_text().splitlines()]
    # A fresh adapter prefers nothing: ln 2 whatever the share of wrong labels; then it learns.
    assert abs(losses[0]["loss"] - 0.6931) < 1e-3
    assert losses[1]["loss"] < losses[0]["loss"] and losses[1]["rewards/margins"] > 0
