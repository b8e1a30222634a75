"""The gateway: OpenAI's endpoints in front of any engine. It owns validation, errors, keys, limits.

Knows nothing of pages, terminals, or how an engine works.
"""
