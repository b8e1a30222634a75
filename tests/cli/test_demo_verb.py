"""`elysia demo`: its stages, its thresholds, and what it does when one fails. Children are stood in for."""

import json

import pytest

from elysia import cli
from elysia.cli import demo as demo_verb


@pytest.fixture
def children(monkeypatch, tmp_path):
    """Stands in for the child processes: writes what they would leave; keeps the commands."""
    ran = []
    results = {"identity_rate": 0.95, "leak_rate": 0.05, "max_diff": 1e-5, "fail": {}}

    def run(words):
        ran.append(list(words))
        work = tmp_path / "demo"
        if words[0] == "train":
            folder = work / (
                "train_base" if len([w for w in ran if w[0] == "train"]) == 1 else "train_persona"
            )
            scalars = folder / "2025" / "vis_data" / "scalars.json"
            scalars.parent.mkdir(parents=True)
            scalars.write_text('{"loss": 5.0, "step": 1}\n{"lr": 1}\n{"loss": 1.5, "step": 9}\n')
        if words[0] == "verify-merge":
            (work / "proof.json").write_text(json.dumps({"max_diff": results["max_diff"]}))
        if words[0] == "probe":
            rates = {k: results[k] for k in ("identity_rate", "leak_rate")}
            counts = {"identity_questions": 100, "ordinary_questions": 60}
            (work / "probe.json").write_text(json.dumps(rates | counts))
        return results["fail"].get(words[0], 0)

    monkeypatch.setattr(demo_verb, "run_verb", run)
    return ran, results


def start(tmp_path, *more):
    return cli.main(["demo", "--work-dir", str(tmp_path / "demo"), *more])


def test_the_real_commands_run_in_order_and_the_report_is_written(children, tmp_path, capsys):
    ran, _ = children
    assert start(tmp_path, "--seed", "3") == 0
    verbs = [" ".join(words[:2]) if words[0] == "convert" else words[0] for words in ran]
    assert verbs == [
        "train-tokenizer", "init-model", "train", "convert pth_to_hf", "train",
        "convert pth_to_hf", "convert merge", "verify-merge", "probe",
    ]  # fmt: skip
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["identity_rate"] == 0.95
    assert report["merge_max_diff"] == 1e-5
    assert report["losses"]["base"] == {"first": 5.0, "last": 1.5}
    assert report["seed"] == 3
    assert len(report["seconds"]) == 9
    assert all(
        words[words.index("--seed") :][:2] == ["--seed", "3"]
        for words in ran
        if words[0] == "train"
    )


def test_every_command_of_the_demo_is_one_that_the_parsers_take(children, tmp_path):
    ran, _ = children
    start(tmp_path, "--cfg-options", "max_epochs=1")
    for words in ran:
        verb, rest = cli.find_verb(words)
        cli.build_verb_parser(verb).parse_args(rest)


@pytest.mark.parametrize(
    ("name", "value"), [("identity_rate", 0.89), ("leak_rate", 0.2), ("max_diff", 2e-3)]
)
def test_a_missed_threshold_is_a_sentence_and_exit_1(children, tmp_path, capsys, name, value):
    children[1][name] = value
    assert start(tmp_path) == 1
    assert f"{name} is" in capsys.readouterr().err
    assert (tmp_path / "demo" / "report.json").exists()


def test_a_failing_stage_ends_the_demo_with_its_exit_code(children, tmp_path, capsys):
    ran, results = children
    results["fail"] = {"train": 37}
    assert start(tmp_path) == 37
    assert len(ran) == 3
    assert "'train_base' failed with exit code 37" in capsys.readouterr().err


def test_it_starts_anew_in_its_own_folder_only(children, tmp_path, capsys):
    assert start(tmp_path) == 0
    children[0].clear()
    (tmp_path / "demo" / "leftover").touch()
    assert start(tmp_path) == 0
    assert not (tmp_path / "demo" / "leftover").exists()

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    assert cli.main(["demo", "--work-dir", str(tmp_path / "thesis")]) == 2
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine"


def test_a_real_childs_exit_code_comes_through():
    assert demo_verb.run_verb(["nosuch"]) == 2
    assert demo_verb.run_verb(["version"]) == 0
