"""The knowledge base: added, found, cited, replaced, removed, kept apart, and made whole again."""

from __future__ import annotations

import logging
import shutil
import threading

import pytest
from sqlalchemy import func, select

from elysia.core.errors import KnowledgeError
from elysia.knowledge import document_store as module
from elysia.knowledge.document_store import open_document_store
from elysia.store.database import open_database
from elysia.store.tables import documents, spans

ROSE = "# 花房\n\n玻璃花房在风铃坡上。\n\n## 玫瑰\n\n粉色的玫瑰是雨天种下的。\n"
TEA = "# 茶会\n\n每个星期五下午四点，大家在花房里喝茶，吃桃子布丁。\n"


@pytest.fixture
def url(tmp_path):
    """An empty database."""
    return str(tmp_path / "chat.db")


@pytest.fixture
def database(url):
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture
def knowledge(database, tmp_path):
    opened = open_document_store(database, tmp_path / "index")
    opened.add("character/e", "rose.md", ROSE.encode())
    opened.add("character/e", "tea.md", TEA.encode())
    yield opened
    opened.close()


def names(hits):
    return [hit.name for hit in hits]


def rows(database):
    with database.read() as connection:
        return [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (documents, spans)
        ]


def test_a_span_is_found_and_cited_to_the_character(knowledge):
    [best, *_] = knowledge.search(["character/e"], "玫瑰是什麼時候種的？", k=3)
    assert best.name == "rose.md"
    assert best.heading == "花房 > 玫瑰"
    assert "雨天" in best.text
    whole = knowledge.text("character/e", best.document_id)
    assert whole[best.start : best.end] == best.text


def test_a_citation_counts_characters_beyond_the_basic_plane_as_one(knowledge):
    text = "🌸🌸𠮷\n\n" + "🌸花。" * 300 + "\n\n紫罗兰在窗边。"
    document = knowledge.add("character/e", "emoji.txt", text.encode())
    [best] = knowledge.search(["character/e"], "紫罗兰", k=1)
    assert best.text == text[best.start : best.end].strip()
    assert document.characters == len(text) + 1


def test_what_a_heading_says_finds_the_span_below_it(knowledge):
    knowledge.add("character/e", "far.md", ("# 绵绵\n\n" + "它很懒。" * 250).encode())
    hits = knowledge.search(["character/e"], "绵绵", k=2)
    assert len(hits) == 2 and all(hit.heading == "绵绵" for hit in hits)


def test_shelves_see_nothing_of_each_other(knowledge):
    document = knowledge.add("user/1/e", "secret.txt", "秘密的玫瑰".encode())
    assert names(knowledge.search(["user/1/e"], "玫瑰", k=9)) == ["secret.txt"]
    assert "secret.txt" not in names(knowledge.search(["character/e", "user/2/e"], "玫瑰", k=9))
    assert names(knowledge.search(["user/1/e", "character/e"], "秘密", k=1)) == ["secret.txt"]
    assert knowledge.search([], "玫瑰") == []
    for reach in (knowledge.text, knowledge.remove):
        with pytest.raises(KnowledgeError, match="no such document"):
            reach("user/2/e", document.id)
    assert [document.name for document in knowledge.documents("user/1/e")] == ["secret.txt"]


def test_the_index_is_not_what_a_right_rests_on(knowledge):
    document = knowledge.add("user/1/e", "secret.txt", "秘密的玫瑰".encode())
    [span] = [hit.id for hit in knowledge._index.search(["user/1/e"], "秘密", k=1)]
    knowledge._index.add("user/2/e", [(span, "秘密的玫瑰")])  # a wrong or tampered index
    assert knowledge.search(["user/2/e"], "秘密") == []
    assert document.shelf == "user/1/e"


def test_documents_are_listed_by_name(knowledge):
    documents = knowledge.documents("character/e")
    assert [(document.name, document.spans, document.pages) for document in documents] == [
        ("rose.md", 2, None),
        ("tea.md", 1, None),
    ]
    assert documents[0].characters == len(ROSE) and documents[0].at > 1e9


def test_one_of_that_name_is_replaced_and_only_what_changed_is_embedded(database, tmp_path, pieces):
    knowledge = open_document_store(database, tmp_path / "index", pieces)
    first = knowledge.add("s", "rose.md", ROSE.encode())
    assert len(pieces.embedded) == 2
    again = knowledge.add("s", "rose.md", (ROSE.replace("雨天", "晴天") + "\n完。").encode())
    assert again.id == first.id
    assert len(pieces.embedded) == 3 and "晴天" in pieces.embedded[-1]
    moved = "新的开头。\n\n" + ROSE
    knowledge.add("s", "rose.md", moved.encode())  # one is back, one is new, one only moved
    assert sorted(text[-12:] for text in pieces.embedded[3:]) == sorted(
        ["新的开头。", pieces.embedded[1][-12:]]
    )
    assert knowledge.search(["s"], "晴天", k=9)[0].text.count("晴天") == 0
    [best] = knowledge.search(["s"], "雨天的玫瑰", k=1)
    assert moved[best.start : best.end] == best.text
    knowledge.add("s", "rose.md", moved.encode())
    assert len(pieces.embedded) == 5
    knowledge.close()


def test_what_is_removed_is_found_no_more(knowledge, database):
    [rose, _] = knowledge.documents("character/e")
    knowledge.remove("character/e", rose.id)
    assert names(knowledge.search(["character/e"], "玫瑰 花房", k=9)) == ["tea.md"]
    assert rows(database) == [1, 1]
    with pytest.raises(KnowledgeError):
        knowledge.remove("character/e", rose.id)


def test_progress_is_told_up_to_the_whole(knowledge):
    shares = []
    text = "\n".join(f"# 第{number}章\n\n第{number}朵花。" for number in range(300))
    knowledge.add("s", "long.md", text.encode(), shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) == 3


@pytest.mark.parametrize(
    ("shelf", "name", "content"),
    [
        ("character/e", "rose.md", b""),
        ("character/e", "rose.pdf", b"no pdf"),
        ("character/e", "../rose.md", b"text"),
        ("character/e", "tea.docx", b"PK\x03\x04broken"),
        ("", "a.txt", b"text"),
        ("a\n", "a.txt", b"text"),
        ("s" * 256, "a.txt", b"text"),
    ],
)
def test_what_is_refused_changes_nothing(knowledge, database, shelf, name, content):
    before = rows(database), knowledge._index.ids("character/e")
    with pytest.raises(KnowledgeError):
        knowledge.add(shelf, name, content)
    assert (rows(database), knowledge._index.ids("character/e")) == before
    assert names(knowledge.search(["character/e"], "雨天的玫瑰", k=1)) == ["rose.md"]


def test_a_database_that_fails_leaves_the_index_as_it_was(knowledge, monkeypatch):
    before = knowledge._index.ids("character/e")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(knowledge._repository, "put", fail)
    with pytest.raises(KeyboardInterrupt):
        knowledge.add("character/e", "new.txt", "百合".encode())
    assert knowledge._index.ids("character/e") == before


def test_a_shelf_follows_its_folder(knowledge, tmp_path, caplog):
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "a.md").write_text("第一朵花")
    (folder / "b.txt").write_text("第二朵花")
    (folder / "ignored.exe").write_text("x")
    (folder / ".hidden.md").write_text("x")
    assert knowledge.sync("s", folder) == (2, 0, 0)
    assert knowledge.sync("s", folder) == (0, 0, 2)
    (folder / "a.md").write_text("第一朵玫瑰")
    (folder / "b.txt").unlink()
    (folder / "bad.pdf").write_text("no pdf")
    with caplog.at_level(logging.WARNING):
        assert knowledge.sync("s", folder) == (1, 1, 1)
    assert "bad.pdf: it is no PDF" in caplog.text
    assert [document.name for document in knowledge.documents("s")] == ["a.md"]
    with pytest.raises(KnowledgeError, match="no folder"):
        knowledge.sync("s", tmp_path / "nowhere")
    assert [document.name for document in knowledge.documents("s")] == ["a.md"]


@pytest.mark.parametrize("harm", ["gone", "garbage"])
def test_an_index_that_is_lost_is_made_from_the_database(database, knowledge, tmp_path, harm):
    knowledge.close()
    if harm == "gone":
        shutil.rmtree(tmp_path / "index")
    else:
        for file in (tmp_path / "index").rglob("*.*"):
            file.write_bytes(b"garbage")
    again = open_document_store(database, tmp_path / "index")
    assert names(again.search(["character/e"], "雨天的玫瑰", k=1)) == ["rose.md"]
    assert names(again.search(["character/e"], "桃子布丁", k=1)) == ["tea.md"]


def test_an_index_that_is_lost_in_mid_life_is_made_again(knowledge, tmp_path):
    for file in (tmp_path / "index" / "words").iterdir():
        file.unlink()
    knowledge.search(["character/e"], "玫瑰")  # notices
    assert names(knowledge.search(["character/e"], "雨天的玫瑰", k=1)) == ["rose.md"]


def test_what_a_kill_left_in_the_index_is_swept_out(database, knowledge, tmp_path):
    [lost] = [hit.id for hit in knowledge._index.search(["character/e"], "布丁", k=1)]
    knowledge._index.add("character/e", [("orphan", "玫瑰玫瑰玫瑰"), ("other", "玫瑰")])
    knowledge._index.remove("character/e", [lost])
    assert "orphan" not in str(knowledge.search(["character/e"], "玫瑰", k=9))
    again = open_document_store(database, tmp_path / "index")
    assert again._index.ids("character/e").isdisjoint({"orphan", "other"})
    assert names(again.search(["character/e"], "桃子布丁", k=1)) == ["tea.md"]


def test_lost_vectors_are_made_again_and_words_serve_meanwhile(database, tmp_path, pieces, caplog):
    knowledge = open_document_store(database, tmp_path / "index", pieces)
    knowledge.add("s", "rose.md", ROSE.encode())
    knowledge.close()
    (tmp_path / "index" / "vectors" / "chroma" / "chroma.sqlite3").write_bytes(b"garbage" * 100)
    held = threading.Event()
    embed = pieces.embed

    def slow(texts, *, question=False):
        if not question:
            held.wait(10)
        return embed(texts, question=question)

    pieces.embed = slow
    again = open_document_store(database, tmp_path / "index", pieces)
    [hit] = again.search(["s"], "雨天的玫瑰", k=1)
    assert (hit.lexical_rank, hit.semantic_rank, str(hit.explanation)) == (1, None, "words #1")
    held.set()
    again.wait()
    [hit] = again.search(["s"], "雨天的玫瑰", k=1)
    assert str(hit.explanation) == "words #1, meaning #1"
    assert caplog.text.count("damaged") == 1
    again.close()


def test_two_programs_share_it(database, url, knowledge, tmp_path):
    other = open_document_store(open_database(url), tmp_path / "index")
    other.add("character/e", "new.txt", "紫罗兰".encode())
    assert names(knowledge.search(["character/e"], "紫罗兰", k=1)) == ["new.txt"]
    [document] = [
        document for document in knowledge.documents("character/e") if document.name == "new.txt"
    ]
    knowledge.remove("character/e", document.id)
    assert "new.txt" not in names(other.search(["character/e"], "紫罗兰", k=1))


def test_threads_add_and_search_at_once(knowledge):
    faults = []

    def work(number):
        try:
            for turn in range(3):
                knowledge.add(f"user/{number}", f"{turn}.txt", f"第{turn}朵玫瑰".encode())
                hits = knowledge.search([f"user/{number}"], "玫瑰", k=9)
                assert len(hits) == turn + 1
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_a_file_beyond_the_limit_is_left_out_of_a_folder(knowledge, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_FILE", 4)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "big.txt").write_text("more than four")
    assert knowledge.sync("s", tmp_path / "f") == (0, 0, 1)
    assert "left out" in caplog.text


def test_a_folders_files_enter_the_index_in_one_write(knowledge, tmp_path, monkeypatch):
    folder = tmp_path / "shelf"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.md").write_text(f"第{number}朵花开了")
    writes = []
    write = knowledge._index._bm25._write
    monkeypatch.setattr(
        knowledge._index._bm25, "_write", lambda *arguments: writes.append(1) or write(*arguments)
    )
    assert knowledge.sync("s", folder) == (12, 0, 0)
    assert len(writes) == 1
    assert len(knowledge._index.ids("s")) == 12
    assert names(knowledge.search(["s"], "第7朵", k=1)) == ["7.md"]


def test_of_files_written_together_those_before_a_fault_stay_and_no_span_is_left(
    knowledge, monkeypatch
):
    put = knowledge._repository.put

    def fail(id, shelf, name, *rest):
        if name == "b.md":
            raise KeyboardInterrupt
        put(id, shelf, name, *rest)

    monkeypatch.setattr(knowledge._repository, "put", fail)
    texts = [(f"{name}.md", lambda name=name: f"{name} 玫瑰".encode()) for name in "abc"]
    with pytest.raises(KeyboardInterrupt):
        list(knowledge.add_all("s", texts))
    assert [document.name for document in knowledge.documents("s")] == ["a.md"]
    assert len(knowledge._index.ids("s")) == 1


def test_files_of_one_name_follow_each_other_and_a_bad_one_keeps_no_other_out(knowledge):
    files = [("a.md", "一朵花"), ("x.pdf", "no pdf"), ("a.md", "两朵花"), ("b.md", "三朵花")]
    readers = [(name, lambda text=text: text.encode()) for name, text in files]
    outcomes = dict(knowledge.add_all("s", readers))
    assert isinstance(outcomes["x.pdf"], KnowledgeError)
    assert [document.name for document in knowledge.documents("s")] == ["a.md", "b.md"]
    assert knowledge.text("s", outcomes["a.md"].id).strip() == "两朵花"
