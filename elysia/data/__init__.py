"""Training data: rows of files become conversations, conversations become token ids with labels, and these
are packed into sequences. None of it needs torch.

`readers` reads files, `formats` converts rows, `tokenize` encodes them and keeps the tokens on disk;
`sources` and `packing` decide what an epoch holds. `lint` finds faults in files; `script` and `synthesis`
make new rows.
"""

from __future__ import annotations

from elysia.core.lazy_imports import build_getattr

# Imported on first use: whoever detects an encoding needs neither numpy nor a tokenizer.
_MODULES = {
    "DatasetRow": "readers",
    "EncodedSample": "schema",
    "FORMATS": "formats",
    "IGNORE": "schema",
    "PREFERENCES": "formats",
    "Sample": "schema",
    "SampleGroup": "schema",
    "TokenizeOptions": "tokenize",
    "TokenizedSet": "tokenize",
    "load_conversations": "formats",
    "pack_best_fit": "packing",
    "read_rows": "readers",
    "tokenize_samples": "tokenize",
    "tokenize_source": "tokenize",
}

__all__ = list(_MODULES)
__getattr__ = build_getattr(__name__, _MODULES)
