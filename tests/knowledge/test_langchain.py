"""LangChain's documents and retrievers, in and out."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document as Passage

from elysia.core.errors import KnowledgeError
from elysia.knowledge.document_store import open_document_store
from elysia.knowledge.langchain import ShelfRetriever, add_passages
from elysia.store.database import open_database


@pytest.fixture
def knowledge(tmp_path):
    database = open_database(str(tmp_path / "chat.db"))
    opened = open_document_store(database, tmp_path / "index")
    yield opened
    opened.close()
    database.close()


def test_a_loaders_passages_come_back_from_the_retriever_with_their_place(knowledge):
    passages = [
        Passage(page_content="粉色的玫瑰。", metadata={"source": "https://e.org/花/rose?x=1"}),
        Passage(page_content="星期五喝茶。", metadata={"source": "C:\\docs\\tea.md"}),
        Passage(page_content="雨天种下。", metadata={"source": "https://e.org/花/rose?x=1"}),
    ]
    documents = add_passages(knowledge, "s", passages)
    assert [document.name for document in documents] == ["rose.txt", "tea.md"]
    assert knowledge.text("s", documents[0].id) == "粉色的玫瑰。\n\n雨天种下。\n"
    retriever = ShelfRetriever(knowledge=knowledge, shelves=("s",), k=1)
    [passage] = retriever.invoke("玫瑰什么颜色")
    assert passage.metadata["file"] == "rose.txt" and passage.metadata["score"] > 0
    text = knowledge.text("s", passage.metadata["document"])
    assert text[passage.metadata["start"] : passage.metadata["end"]] == passage.page_content


def test_a_retriever_sees_its_own_shelves_alone(knowledge):
    knowledge.add("other", "a.txt", "玫瑰".encode())
    assert ShelfRetriever(knowledge=knowledge, shelves=("s",)).invoke("玫瑰") == []


def test_a_passage_without_a_source_adds_nothing(knowledge):
    passages = [Passage(page_content="a", metadata={"source": "a"}), Passage(page_content="b")]
    with pytest.raises(KnowledgeError, match="source"):
        add_passages(knowledge, "s", passages)
    assert knowledge.documents("s") == []
