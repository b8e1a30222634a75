"""What a character remembers of a user, beyond the turns that fit her context.

Knows nothing of engines, prompts or pages.
"""
