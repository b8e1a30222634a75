"""The index: scopes, replacing, damage, several threads and processes, words and vectors together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from elysia.retrieval.index import fuse_rankings, open_index

TEXTS = [
    ("rose", "爱莉希雅在花园里种了粉色的玫瑰。"),
    ("tea", "每周五下午她们一起喝茶，吃草莓蛋糕。"),
    ("sea", "She walked along the sea and collected memories of summer."),
]


@pytest.fixture
def index(tmp_path):
    opened = open_index(tmp_path / "index")
    opened.add("a", TEXTS)
    opened.mark_complete()
    yield opened
    opened.close()


def ids(hits):
    return [hit.id for hit in hits]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("玫瑰是什么颜色的？", "rose"),
        ("愛莉希雅種了什麼", "rose"),
        ("下午喝什么茶", "tea"),
        ("WALKS by the sea, memory", "sea"),
    ],
)
def test_a_question_finds_its_text(index, question, expected):
    assert ids(index.search(["a"], question, k=1)) == [expected]


def test_a_search_sees_the_scopes_that_it_names_and_no_other(index):
    index.add("b", [("secret", "玫瑰的秘密"), ("rose", "另一个人的玫瑰")])
    assert set(ids(index.search(["b"], "玫瑰", k=9))) == {"secret", "rose"}
    assert ids(index.search(["a"], "秘密", k=9)) == []
    assert ids(index.search(["a", "b", "c"], "秘密", k=9)) == ["secret"]
    assert index.search([], "玫瑰", k=9) == []
    index.remove("b", ["rose"])
    assert ids(index.search(["a"], "玫瑰", k=9)) == ["rose"]


@pytest.mark.parametrize("scope", ["a b", "用户/🌸", "x\x1fy", "a" * 5_000, "-", "a*", ""])
def test_any_text_is_a_scope(index, scope):
    index.add(scope, [("one", "玫瑰")])
    assert index.count(scope) == 1
    assert ids(index.search([scope], "玫瑰", k=9)) == ["one"]
    assert ids(index.search(["a"], "玫瑰", k=9)) == ["rose"]


def test_an_id_is_replaced_and_removed(index):
    index.add("a", [("rose", "现在是百合。")])
    assert index.count("a") == 3
    assert index.search(["a"], "玫瑰", k=9) == []
    assert ids(index.search(["a"], "百合", k=9)) == ["rose"]
    index.remove("a", ["rose", "never there"])
    assert index.ids("a") == {"tea", "sea"}
    index.remove_scope("a")
    assert index.count("a") == 0 and index.ids("a") == set()


@pytest.mark.parametrize(
    "question", ["", "？？", "\x00", 'OR AND ( " ^ *', "爱" * 50_000, "\ud800"]
)
def test_no_question_is_a_fault(index, question):
    assert len(index.search(["a"], question, k=3)) <= 3


def test_it_outlives_the_process_and_is_not_fresh_then(index, tmp_path):
    again = open_index(tmp_path / "index")
    assert not again.needs_refill
    assert ids(again.search(["a"], "玫瑰", k=9)) == ["rose"]
    index.add("a", [("new", "紫罗兰")])  # another process's reader sees it at once
    assert ids(again.search(["a"], "紫罗兰", k=9)) == ["new"]


def test_it_stays_fresh_until_the_owner_has_added_everything(tmp_path):
    open_index(tmp_path).add("a", TEXTS)
    again = open_index(tmp_path)
    assert again.needs_refill
    again.mark_complete()
    assert not open_index(tmp_path).needs_refill


@pytest.mark.parametrize("harm", ["empty", "cut", "gone"])
def test_a_damaged_folder_is_made_anew_and_says_so(index, tmp_path, harm):
    for file in (tmp_path / "index" / "words").iterdir():
        if harm == "gone":
            file.unlink()
        else:
            file.write_bytes(b"" if harm == "empty" else file.read_bytes()[:-7])
    again = open_index(tmp_path / "index")
    assert again.needs_refill
    again.add("a", TEXTS)
    assert ids(again.search(["a"], "玫瑰", k=9)) == ["rose"]


def test_damage_in_mid_life_loses_no_search(index, tmp_path):
    index.remove("a", ["sea"])
    for file in (tmp_path / "index" / "words").iterdir():
        file.unlink()
    assert index.search(["a"], "玫瑰", k=9) == []
    assert index.needs_refill
    index.add("a", TEXTS)
    assert ids(index.search(["a"], "玫瑰", k=9)) == ["rose"]


def test_threads_write_and_search_at_once(index):
    faults = []

    def work(number):
        try:
            for turn in range(5):
                index.add(f"s{number}", [(f"{number}-{turn}", f"第{turn}朵玫瑰")])
                assert len(index.search([f"s{number}"], "玫瑰", k=9)) == turn + 1
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def write_some(folder, scope):
    index = open_index(folder)
    for number in range(5):
        index.add(scope, [(f"{scope}{number}", "玫瑰")])


def test_processes_that_write_wait_for_each_other(index, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    others = [spawn.Process(target=write_some, args=(tmp_path / "index", scope)) for scope in "xy"]
    for process in others:
        process.start()
    for number in range(10):
        index.add("z", [(f"z{number}", "玫瑰")])
    for process in others:
        process.join()
        assert process.exitcode == 0
    assert [index.count(scope) for scope in "axyz"] == [3, 5, 5, 10]


WRITER = """
import sys
from pathlib import Path
from elysia.retrieval.index import open_index
index = open_index(Path(sys.argv[1]))
for number in range(10**6):
    index.add("k", [(str(number), "玫瑰" * 50)])
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_loses_nothing_that_it_reported(index, tmp_path):
    for delay in (0.0, 0.003, 0.011):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "index")], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        last = [int(writer.stdout.readline()) for _ in range(3)][-1]
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        again = open_index(tmp_path / "index")
        assert not again.needs_refill
        assert {str(number) for number in range(last + 1)} <= again.ids("k")
        again.add("k", [("after", "百合")])
        assert ids(again.search(["k"], "百合", k=1)) == ["after"]


def test_vectors_find_what_words_alone_rank_low(tmp_path, pieces):
    index = open_index(tmp_path, pieces)
    index.add("a", TEXTS)
    hits = index.search(["a"], "粉色的玫瑰", k=3)
    assert hits[0].id == "rose"
    assert (hits[0].lexical_rank, hits[0].semantic_rank) == (1, 1)
    assert len(hits) == 3  # the nearest come even without a shared word
    index.remove("a", ["rose"])
    assert "rose" not in ids(index.search(["a"], "粉色的玫瑰", k=3))
    index.remove_scope("a")
    assert index.search(["a"], "粉色的玫瑰", k=3) == []
    index.close()


def test_a_model_that_finds_everything_equally_near_does_not_overrule_the_words():
    words = [("right", 20.0), ("other", 9.0)]
    near = [(f"{number}", 0.31 - number / 1_000) for number in range(9)] + [("right", 0.3)]
    assert fuse_rankings(words, near)[0].id == "right"
    assert fuse_rankings([], near)[0].id == "0"
    assert [hit.id for hit in fuse_rankings(words, [])] == ["right", "other"]


def test_how_close_together_a_model_puts_all_texts_does_not_matter():
    words = [("a", 10.0), ("b", 9.0), ("c", 2.0)]
    near = [("b", 0.7), ("c", 0.5), ("a", 0.4), ("d", 0.3)]
    close = [(id, 1 - (1 - cosine) / 8) for id, cosine in near]
    for hit, other in zip(fuse_rankings(words, near), fuse_rankings(words, close), strict=True):
        assert hit.id == other.id and hit.score == pytest.approx(other.score)
    assert (
        fuse_rankings(words, close)[0].id == "b"
    )  # its meaning is worth more than a tenth of the words
    assert [hit.score for hit in fuse_rankings([], [("x", 1.0), ("y", 1.0)])] == [0.0, 0.0]


def test_what_did_not_change_is_not_embedded_again(tmp_path, pieces):
    index = open_index(tmp_path, pieces)
    index.add("a", TEXTS)
    index.add("a", [*TEXTS, ("new", "新的一句")])
    assert pieces.embedded == [text for _, text in TEXTS] + ["新的一句"]
    index.close()


def test_damaged_vectors_are_made_anew_from_what_the_owner_adds(tmp_path, pieces, caplog):
    index = open_index(tmp_path, pieces)
    index.add("a", TEXTS)
    index.mark_complete()
    index.close()
    (tmp_path / "vectors" / "chroma" / "chroma.sqlite3").write_bytes(b"no database" * 100)
    again = open_index(tmp_path, pieces)
    assert "damaged" in caplog.text
    assert again.needs_refill
    assert ids(again.search(["a"], "玫瑰", k=1)) == ["rose"]  # by words, meanwhile
    again.add("a", TEXTS)
    again.mark_complete()
    [hit] = again.search(["a"], "玫瑰", k=1)
    assert (hit.lexical_rank, hit.semantic_rank) == (1, 1)
    again.close()


def test_without_chroma_words_serve_and_it_is_said_once(tmp_path, pieces, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "chromadb", None)
    index = open_index(tmp_path, pieces)
    index.add("a", TEXTS)
    index.mark_complete()
    for _ in range(3):
        assert ids(index.search(["a"], "玫瑰", k=1)) == ["rose"]
    assert caplog.text.count("Chroma is not installed") == 1
    monkeypatch.undo()
    again = open_index(tmp_path, pieces)  # Chroma is back: its vectors are wanted
    assert again.needs_refill
    again.close()


def test_a_second_process_searches_by_words_and_what_it_adds_is_made_up_for(
    tmp_path, pieces, caplog
):
    first = open_index(tmp_path, pieces)
    first.add("a", TEXTS)
    first.mark_complete()
    second = open_index(tmp_path, pieces)
    assert "in use by another process" in caplog.text
    second.add("a", [("lily", "百合")])
    assert ids(second.search(["a"], "百合", k=1)) == ["lily"]
    first.close()
    assert open_index(tmp_path, pieces).needs_refill


def test_a_server_out_of_reach_leaves_the_words(tmp_path, pieces, caplog):
    caplog.set_level(logging.WARNING)
    index = open_index(tmp_path, pieces, server="http://127.0.0.1:9")
    index.add("a", TEXTS)
    assert ids(index.search(["a"], "玫瑰", k=1)) == ["rose"]
    assert "No Chroma server answers at 127.0.0.1:9" in caplog.text
