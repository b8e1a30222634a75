"""Lint of dataset files: what is wrong with them, by file, line and row, and what can be mended.

`run.py` puts the parts together. Knows nothing of training or of models.
"""
