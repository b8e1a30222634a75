"""Models and tokenizers: where they come from, how they are loaded, adapted, made and saved.

Importing this package imports no torch; each module does when it is imported. Knows nothing of
datasets.
"""
