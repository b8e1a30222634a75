"""Read the rows of dataset files of any kind, streamed, and detect the encoding of a text file."""

from elysia.data.readers.row_reader import DatasetRow, read_rows, rename_columns
from elysia.data.readers.text_encoding import detect_encoding, detect_encoding_of_bytes

__all__ = [
    "DatasetRow",
    "detect_encoding",
    "detect_encoding_of_bytes",
    "read_rows",
    "rename_columns",
]
