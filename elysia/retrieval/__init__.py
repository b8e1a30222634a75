"""Text retrieval under scopes: BM25 over folded terms, vectors of an embedding model, both fused.

Memory and knowledge build on it. `open_index` opens an index, `open_embedder` an embedding model.
"""

from __future__ import annotations

from elysia.retrieval.embedders import Embedder, open_embedder
from elysia.retrieval.index import HybridIndex, IndexHit, open_index

__all__ = ["Embedder", "HybridIndex", "IndexHit", "open_embedder", "open_index"]
