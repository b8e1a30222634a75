"""Dialogues of a character written by a model behind an OpenAI-compatible endpoint.

`write.py` puts the parts together. Knows nothing of training or of local models.
"""
