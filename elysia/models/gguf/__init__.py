"""GGUF files: reading their metadata and tokenizer, and serving them with llama.cpp in a child process."""
