"""Readers, a file for a few kinds each: bytes become a Source. KINDS says which reads what.

A reader raises KnowledgeError with the end of a sentence that began with the file's name. All but
plain text are run in a child process with limits (`knowledge.reading`). Knows nothing of shelves.
"""

from __future__ import annotations

KINDS = {
    ".txt": "elysia.knowledge.readers.plain:read_text",
    ".md": "elysia.knowledge.readers.plain:read_markdown",
    ".markdown": "elysia.knowledge.readers.plain:read_markdown",
    ".csv": "elysia.knowledge.readers.plain:read_csv",
    ".tsv": "elysia.knowledge.readers.plain:read_csv",
    ".html": "elysia.knowledge.readers.markup:read_html",
    ".htm": "elysia.knowledge.readers.markup:read_html",
    ".xhtml": "elysia.knowledge.readers.markup:read_html",
    ".epub": "elysia.knowledge.readers.markup:read_epub",
    ".pdf": "elysia.knowledge.readers.office:read_pdf",
    ".docx": "elysia.knowledge.readers.office:read_docx",
}
# What is only decoded: no parser that a hostile file could drive.
PLAIN = {".txt", ".md", ".markdown"}
