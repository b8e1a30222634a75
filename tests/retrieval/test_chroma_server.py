"""The index with its vectors at a Chroma server: shared, kept apart, and what happens when it falls."""

from __future__ import annotations

import logging
from contextlib import ExitStack

import pytest

from elysia.retrieval.index import open_index
from tests.retrieval.test_index import TEXTS, ids
from tests.servers import chroma


@pytest.fixture
def opened():
    """Open an index, as often as wanted; closed at the end."""
    with ExitStack() as stack:

        def open_it(*args, **options):
            index = open_index(*args, **options)
            stack.callback(index.close)
            return index

        yield open_it


def ranks(index, question):
    """The places of the best hit by words and by meaning."""
    [hit] = index.search(["a"], question, k=1)
    return hit.lexical_rank, hit.semantic_rank


def filled(index):
    index.add("a", TEXTS)
    index.mark_complete()
    return index


def test_it_finds_by_meaning_replaces_and_removes(tmp_path, pieces, chroma_server, opened):
    index = filled(opened(tmp_path, pieces, server=chroma_server))
    assert ranks(index, "粉色的玫瑰") == (1, 1)
    assert index.search(["b"], "粉色的玫瑰", k=1) == []
    index.add("a", [("rose", "完全不同的一句")])
    assert index.search(["a"], "完全不同的一句", k=1)[0].id == "rose"
    index.remove("a", ["rose"])
    assert "rose" not in ids(index.search(["a"], "完全不同的一句", k=9))
    index.remove_scope("a")
    assert index.search(["a"], "玫瑰", k=9) == []


def test_several_programs_share_one_index_and_all_find_by_meaning(
    tmp_path, pieces, chroma_server, opened
):
    first = filled(opened(tmp_path, pieces, server=chroma_server))
    second = opened(tmp_path, pieces, server=chroma_server)
    assert not second.needs_refill
    second.add("a", [("lily", "百合")])
    for index in (first, second):
        assert ranks(index, "百合") == (1, 1)
    assert pieces.embedded == [text for _, text in TEXTS] + ["百合"]


def test_two_indexes_at_one_server_keep_apart(tmp_path, pieces, chroma_server, opened):
    first, second = (
        filled(opened(tmp_path / owner / "memory", pieces, server=chroma_server))
        for owner in ("mine", "yours")
    )
    first.remove_scope("a")
    assert first.search(["a"], "玫瑰", k=9) == []
    assert ranks(second, "粉色的玫瑰") == (1, 1)


def test_a_server_that_falls_leaves_the_words_and_one_that_lost_all_is_filled_again(
    tmp_path, pieces, opened, caplog
):
    caplog.set_level(logging.WARNING)
    (tmp_path / "server").mkdir()
    with chroma(tmp_path / "server") as url:
        index = filled(opened(tmp_path / "index", pieces, server=url))
    for _ in range(2):
        assert ids(index.search(["a"], "玫瑰", k=1)) == ["rose"]  # by words
    index.add("a", [("lily", "百合")])
    assert caplog.text.count("cannot be searched") == 1 and index.needs_refill
    index.mark_complete()  # as if nothing had been missed
    (tmp_path / "another").mkdir()
    with chroma(tmp_path / "another") as url:
        again = opened(tmp_path / "index", pieces, server=url)
        assert again.needs_refill
        again.refill(lambda: [("a", [*TEXTS, ("lily", "百合")])])
        again.wait()
        assert not again.needs_refill and ranks(again, "百合") == (1, 1)
