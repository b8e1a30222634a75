"""Preference formats: two talks that differ in their last reply, and sentences for rows that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elysia.core.errors import DataError
from elysia.core.templates import get_template
from elysia.data.formats.conversion import RowConverter, iter_sample_groups
from elysia.data.formats.preference_pairs import PREFERENCES, detect_pair_format
from elysia.data.tokenize.sample_tokenizer import tokenize_samples
from elysia.models.loading import load_tokenizer

ROOT = Path(__file__).parents[3]

HISTORY = [
    {"from": "system", "value": "S"},
    {"from": "human", "value": "1"},
    {"from": "gpt", "value": "2"},
    {"from": "human", "value": "问"},
]
ROWS = {
    "preference": {"prompt": "问", "chosen": "好", "rejected": "坏"},
    "preference_alpaca": {"instruction": "问", "input": "", "chosen": "好", "rejected": "坏"},
    "preference_sharegpt": {
        "conversations": HISTORY,
        "chosen": {"from": "gpt", "value": "好"},
        "rejected": {"role": "assistant", "content": "坏"},
    },
    "orpo_dpo_mix_40k": {
        key: [{"role": "user", "content": "问"}, {"role": "assistant", "content": text}]
        for key, text in (("chosen", "好"), ("rejected", "坏"))
    },
    "intel_orca_dpo": {"system": "S", "question": "问", "chosen": "好", "rejected": "坏"},
}


def load_pairs(path, name):
    return list(iter_sample_groups(path, RowConverter(name, pairs=True)))


def file_of(folder, *rows):
    path = folder / "pairs.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PREFERENCES)
def test_a_row_becomes_two_talks_that_learn_their_last_reply_alone(name):
    good, bad = PREFERENCES[name](ROWS[name])
    # XTuner's own two are never guessed: what `preference` does not read of them is rare.
    assert detect_pair_format(ROWS[name]) == (name if "preference" in name else "preference")
    assert good[:-1] == bad[:-1] and good[-2].text == "问"
    assert (good[-1].text, bad[-1].text) == ("好", "坏")
    assert [m.text for m in good if m.learned] == ["好"]


def test_messages_are_taken_as_prompt_and_as_replies_with_or_without_the_prompt():
    ask = {"role": "user", "content": "问"}
    good, bad = ({"role": "assistant", "content": text} for text in "好坏")
    rows = [
        {"prompt": [ask], "chosen": [good], "rejected": [bad]},
        {"prompt": "问", "chosen": [ask, good], "rejected": [ask, bad]},
        {"chosen": [ask, good], "rejected": [ask, bad]},
    ]
    assert len({repr(PREFERENCES["preference"](row)) for row in rows}) == 1


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": ...}, "the key 'rejected' is missing"),
        ({"chosen": None}, "'chosen' is null"),
        ({"rejected": "same"}, "same text"),
    ],
    ids=["missing", "null", "same"],
)
def test_a_row_that_is_no_pair_is_named_with_its_key(tmp_path, name, change, message):
    row = dict(ROWS[name])
    for key, value in change.items():
        row[key] = row["chosen"] if value == "same" else value
        if value is ...:
            del row[key]
    path = file_of(tmp_path, ROWS[name], row)
    if message == "same text" and not name.startswith("preference"):
        # XTuner's own formats are those of hubs' datasets, whose rows nobody can take out.
        assert [good.row for good, _ in load_pairs(path, name)] == [1]
        with pytest.raises(DataError, match="no row prefers"):
            load_pairs(file_of(tmp_path, row), name)
        return
    with pytest.raises(DataError, match=rf"pairs.json, row 2: .*{message}"):
        load_pairs(path, name)


def test_a_prompt_that_ends_with_a_reply_or_replies_to_different_ones_are_refused():
    row = ROWS["preference_sharegpt"]
    with pytest.raises(DataError, match="must end with a question"):
        PREFERENCES["preference_sharegpt"](row | {"conversations": HISTORY[:3]})
    reply = {"role": "assistant", "content": "a"}
    talks = [[{"role": "user", "content": text}, reply] for text in "问答"]
    with pytest.raises(DataError, match="answer different messages"):
        PREFERENCES["preference"]({"chosen": talks[0], "rejected": talks[1]})


def test_what_comes_before_is_the_chosen_talks_in_xtuners_own_format():
    reply = {"role": "assistant", "content": "a"}
    talks = [[{"role": "user", "content": text}, reply | {"content": text}] for text in "问答"]
    good, bad = PREFERENCES["orpo_dpo_mix_40k"]({"chosen": talks[0], "rejected": talks[1]})
    assert [m.text for m in good] == ["问", "问"] and [m.text for m in bad] == ["问", "答"]


def test_rows_of_another_preference_format_name_the_right_one(tmp_path):
    path = file_of(tmp_path, ROWS["preference_sharegpt"])
    with pytest.raises(DataError, match="set dataset_format='preference_sharegpt'"):
        load_pairs(path, "preference")
    with pytest.raises(DataError, match=r"no preference format .*Did you mean 'preference'"):
        load_pairs(path, "preferences")


def test_the_real_file_is_read_and_its_damaged_rows_are_named(shared_data, tmp_path):
    path = shared_data / "instruct" / "lf_dpo_zh_demo.json"
    with pytest.raises(DataError, match=r"row \d+: .*U\+FFFD"):
        load_pairs(path, "preference_sharegpt")
    rows = json.loads(path.read_text(encoding="utf-8"))
    whole = [row for row in rows if "\ufffd" not in json.dumps(row, ensure_ascii=False)]
    pairs = load_pairs(file_of(tmp_path, *whole), "preference_sharegpt")
    assert len(pairs) == len(whole) == 294
    assert all(good.messages[:-1] == bad.messages[:-1] for good, bad in pairs)


def test_chosen_and_rejected_lie_by_turns_and_only_replies_are_learned(tmp_path, tiny_internlm2):
    tokenizer = load_tokenizer(tiny_internlm2)
    pairs = load_pairs(file_of(tmp_path, ROWS["preference"]), "preference")
    tokens = tokenize_samples(
        pairs, get_template("internlm2_chat"), tokenizer, system="S", max_length=200, pairs=True
    )
    texts = [tokenizer.decode([i for i in labels if i != -100]) for _, labels in tokens]
    assert len(tokens) == 2 and "好" in texts[0] and "坏" in texts[1]
    assert not any("问" in text for text in texts)


def test_max_length_is_of_both_together_and_a_pair_is_left_out_whole(tmp_path, tiny_internlm2):
    tokenizer, template = load_tokenizer(tiny_internlm2), get_template("internlm2_chat")
    long = {"prompt": "问", "chosen": "好", "rejected": "坏" * 200}
    pairs = load_pairs(file_of(tmp_path, ROWS["preference"], long), "preference")
    with pytest.raises(DataError, match=r"row 2: chosen and rejected have \d+ tokens together"):
        tokenize_samples(pairs, template, tokenizer, pairs=True, max_length=200)
    tokens = tokenize_samples(
        pairs, template, tokenizer, pairs=True, max_length=200, overlong="drop"
    )
    assert tokens.dropped == 1 and [row for _, row in tokens.origin] == [1, 1]


def test_the_bundled_pairs_prefer_no_length_and_hold_no_probe():
    pairs = load_pairs(ROOT / "data" / "elysia_pairs.json", "preference")
    good, bad = (
        [len(talk.messages[-1].text) for talk in side] for side in zip(*pairs, strict=True)
    )
    assert len(pairs) == 64 and abs(sum(good) - sum(bad)) < 0.1 * sum(good)
    assert 0.4 < sum(g > b for g, b in zip(good, bad, strict=True)) / 64 < 0.6
    probes = "".join((ROOT / "data" / f"probes{end}.json").read_text() for end in ("", "_ordinary"))
    asked = [talk.messages[0].text for talk, _ in pairs]
    assert len(set(asked)) == 64 and not any(f'"{text}"' in probes for text in asked)
