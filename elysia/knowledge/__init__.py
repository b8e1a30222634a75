"""What a character can look up: documents, searched by span, each find citable.

Knows nothing of engines, prompts or pages.
"""
