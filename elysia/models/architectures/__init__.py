"""Architectures that transformers does not know: InternLM2's network and its tokenizer."""
