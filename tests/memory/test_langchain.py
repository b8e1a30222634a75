"""A memory as LangChain's retriever."""

from __future__ import annotations

from elysia.memory.base import MemoryScope
from elysia.memory.langchain import MemoryRetriever


def test_a_chain_gets_what_the_scope_recalls_and_no_other(store, scope, say):
    store.remember(scope, [say("I have a greyhound called Biscuit"), say("the sea was cold")])
    store.remember(MemoryScope("bob", "elysia"), [say("My greyhound is called Rex")])
    documents = MemoryRetriever(store=store, scope=scope, k=2).invoke(
        "What is my greyhound called?"
    )
    assert "Biscuit" in documents[0].page_content and documents[0].metadata["score"] > 0
    assert len(documents) <= 2 and all("Rex" not in document.page_content for document in documents)
