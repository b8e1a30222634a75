"""Finding texts by a question: words, vectors, both together. Shared by memory and knowledge.

Knows nothing of what the texts are, nor of who may read them.
"""
