"""A memory as LangChain's retriever."""

from __future__ import annotations

from elysia.memory.base import MemoryScope
from elysia.memory.langchain import MemoryRetriever


def test_a_chain_gets_what_the_scope_recalls_and_no_other(store, scope, say):
    store.remember(scope, [say("I have a greyhound called Biscuit"), say("the sea was cold")])
    store.remember(MemoryScope("bob", "elysia"), [say("My greyhound is called Rex")])
    found = MemoryRetriever(store=store, scope=scope, k=2).invoke("What is my greyhound called?")
    assert "Biscuit" in found[0].page_content and found[0].metadata["score"] > 0
    assert len(found) <= 2 and all("Rex" not in one.page_content for one in found)
