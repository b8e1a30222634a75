"""Tokens are made once, kept whole, found again by what they were made of, and never mistaken."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from transformers import AutoTokenizer

from elysia.core.errors import DataError
from elysia.core.templates import get_template
from elysia.data.tokenize import token_cache
from elysia.data.tokenize.arrays import select_samples
from elysia.data.tokenize.sample_tokenizer import TokenizeOptions
from elysia.data.tokenize.source_tokenizer import tokenize_source

ROWS = [{"input": f"问题 {n}", "output": f"回答 {n}。" * (1 + n % 3)} for n in range(9)]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return AutoTokenizer.from_pretrained(tiny_tokenizer)


@pytest.fixture
def ask(tmp_path, tokenizer, monkeypatch):
    """The tokens of nine rows; changes are of the way or the source."""
    monkeypatch.setenv("ELYSIA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS, ensure_ascii=False), encoding="utf-8")

    def asked(cache=1.0, function=None, limit=None, seed=0, format="default", **way):
        source = {"path": str(path), "format": format, "limit": limit}
        way = TokenizeOptions(get_template("internlm2_chat"), **{"max_length": 256} | way)
        return tokenize_source(source, way, tokenizer, function, seed=seed, cache=cache)

    asked.path = path
    asked.entries = lambda: sorted(p for p in (tmp_path / "cache/tokens").glob("*") if p.is_dir())
    return asked


def digest(tokens):
    return select_samples([tokens], [np.arange(len(tokens))], 256, "error").sha256()


def test_kept_tokens_are_mapped_and_the_same_as_those_in_memory(ask, caplog):
    caplog.set_level("INFO")
    built, cached, plain = ask(), ask(), ask(cache=0)
    assert "kept in" in caplog.messages[0] and "taken from" in caplog.messages[1]
    assert digest(built) == digest(cached) == digest(plain)
    assert isinstance(cached.ids, np.memmap) and not isinstance(plain.ids, np.memmap)
    assert len(cached) == 9 and cached.rows.tolist() == list(range(1, 10))
    assert len(ask.entries()) == 1


def test_anything_that_shapes_tokens_makes_another_entry(ask):
    ask()
    ask(system="S")
    ask(max_length=255)
    ask(overlong="drop")
    ask(limit=5)
    ask(limit=5, seed=1)
    assert len(ask.entries()) == 6
    ask.path.write_text(json.dumps(ROWS[:8]), encoding="utf-8")
    assert len(ask()) == 8
    assert len(ask.entries()) == 7


@pytest.mark.parametrize("harm", ["cut", "bits", "about", "gone"])
def test_a_damaged_entry_is_made_anew_with_a_sentence(ask, caplog, harm):
    expected = digest(ask())
    (entry,) = ask.entries()
    ids = entry / "ids.i4"
    if harm == "cut":
        ids.write_bytes(ids.read_bytes()[:-8])
    elif harm == "bits":
        content = ids.read_bytes()
        ids.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif harm == "about":
        (entry / token_cache.ABOUT_FILE).write_text("{")
    else:
        ids.unlink()
    assert digest(ask()) == expected
    assert "They are built again." in caplog.text
    caplog.clear()
    assert digest(ask()) == expected
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_an_entry_of_other_data_is_never_taken(ask, caplog):
    ask()
    (entry,) = ask.entries()
    about = json.loads((entry / token_cache.ABOUT_FILE).read_text())
    (entry / token_cache.ABOUT_FILE).write_text(json.dumps(about | {"made_of": "something else"}))
    ask()
    assert "are damaged" in caplog.text


def test_rows_that_are_refused_leave_no_entry(ask):
    with pytest.raises(DataError, match=r"rows\.json, row 1: \d+ tokens"):
        ask(max_length=8)
    assert ask.entries() == []


def test_of_several_that_ask_at_once_one_makes_the_entry(ask, monkeypatch):
    written = []
    write = token_cache.write_entry
    monkeypatch.setattr(token_cache, "write_entry", lambda *args: (written.append(1), write(*args)))
    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(lambda _: digest(ask()), range(4)))
    assert len(set(tokens)) == 1 and len(written) == 1


def test_a_folder_that_cannot_be_written_costs_no_run(ask, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ELYSIA_CACHE", str(tmp_path / "file"))
    assert len(ask()) == 9
    assert "Tokens are not cached" in caplog.text


def test_what_a_function_of_the_users_own_made_is_not_kept(ask):
    from elysia.data.formats.registry import FORMATS

    assert len(ask(function=FORMATS["default"])) == 9
    assert ask.entries() == []


def test_parts_make_the_same_tokens_as_the_whole(ask, monkeypatch):
    whole = digest(ask(cache=0))
    monkeypatch.setattr("elysia.data.tokenize.source_tokenizer.SAMPLES_PER_BATCH", 2)
    assert digest(ask(cache=0)) == digest(ask()) == whole


def test_the_least_used_entries_go_when_all_take_more_than_they_may(ask, caplog):
    caplog.set_level("INFO")
    ask()
    (first,) = ask.entries()
    os.utime(first / token_cache.ABOUT_FILE, (1, 1))
    ask(system="S")
    assert len(ask.entries()) == 2
    os.utime(first / token_cache.ABOUT_FILE, (1, 1))
    size = sum(file.stat().st_size for file in first.iterdir())
    ask(system="T", cache=2.9 * size / 1e9)
    assert first not in ask.entries() and len(ask.entries()) == 2
    assert str(first) in caplog.text
    tokens = ask(system="T", cache=1e-9)
    assert len(tokens) == 9 and len(ask.entries()) == 2  # what is taken needs no more room
    assert len(ask(system="U", cache=1e-9)) == 9 and len(ask.entries()) == 1


def test_an_entry_that_was_just_used_stays(ask):
    ask()
    (first,) = ask.entries()
    ask(system="S")
    (second,) = set(ask.entries()) - {first}
    for entry in (first, second):
        os.utime(entry / token_cache.ABOUT_FILE, (1, 1))
    ask()
    size = sum(file.stat().st_size for file in first.iterdir())
    ask(system="T", cache=2.9 * size / 1e9)
    assert first in ask.entries() and second not in ask.entries()


def test_a_disk_that_becomes_full_costs_no_run(ask, small_disk, caplog):
    many = [row | {"input": str(n)} for n in range(900) for row in ROWS[:1]]
    ask.path.write_text(json.dumps(many), encoding="utf-8")
    expected = digest(ask(cache=0))
    with small_disk(20_000):
        tokens = ask()
    assert digest(tokens) == expected and len(tokens.ids) > 5_000
    assert "Tokens are not cached but held in memory" in caplog.text
    assert ask.entries() == [] and not list((ask.path.parent / "cache/tokens").glob(".*"))


def test_of_a_limit_the_same_rows_are_drawn_however_they_are_read(ask, monkeypatch):
    every, some = ask(cache=0), ask(cache=0, limit=4, seed=7)
    order = np.sort(np.random.default_rng(7).permutation(9)[:4]) + 1
    assert some.rows.tolist() == order.tolist()
    ends = np.cumsum(every.lengths)
    expected = [every.ids[ends[r - 1] - every.lengths[r - 1] : ends[r - 1]] for r in order]
    assert np.array_equal(some.ids, np.concatenate(expected))


def test_left_out_rows_are_not_drawn_and_are_told_once(ask, caplog):
    rows = [{"instruction": str(n), "output": "<nooutput>" if n % 3 else "b"} for n in range(9)]
    ask.path.write_text(json.dumps(rows), encoding="utf-8")
    some = ask(cache=0, limit=2, format="alpaca")
    assert set(some.rows.tolist()) < {1, 4, 7} and len(some) == 2
    assert caplog.text.count("6 rows hold no reply to learn and were left out") == 1
    assert ask(cache=0, format="alpaca").rows.tolist() == [1, 4, 7]
