"""The database: its tables, its migrations, one door to open it.

Knows nothing of what the rows mean to a conversation, a memory or a document.
"""
