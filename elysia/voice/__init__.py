"""Her voice: text becomes phonemes, phonemes become sound, sentence by sentence.

Knows nothing of language models, of conversations, of pages, or of who listens.
"""
