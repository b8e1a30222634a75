"""Documents whose vectors lie at a Chroma server: found by meaning, shelves apart, replaced, removed."""

from __future__ import annotations

from elysia.knowledge.document_store import open_document_store
from tests.knowledge.test_document_store import ROSE, TEA, database, names, url  # noqa: F401


def test_shelves_at_a_server(database, tmp_path, pieces, chroma_server):  # noqa: F811
    first = open_document_store(database, tmp_path / "index", pieces, server=chroma_server)
    first.add("character/e", "rose.md", ROSE.encode())
    first.add("user/ann", "tea.md", TEA.encode())
    second = open_document_store(database, tmp_path / "index", pieces, server=chroma_server)
    for knowledge in (first, second):
        [hit] = knowledge.search(["character/e"], "粉色的玫瑰", k=1)
        assert (hit.name, hit.semantic_rank) == ("rose.md", 1)
        assert names(knowledge.search(["character/e"], "桃子布丁", k=9)) == ["rose.md", "rose.md"]
    second.add("character/e", "rose.md", TEA.encode())
    assert names(first.search(["character/e"], "粉色的玫瑰", k=9)) == ["rose.md"]
    [document] = first.documents("character/e")
    first.remove("character/e", document.id)
    assert second.search(["character/e"], "桃子布丁", k=9) == []
    assert names(second.search(["user/ann"], "桃子布丁", k=9)) == ["tea.md"]
    first.close()
    second.close()
