"""Elysia: from a persona to a character you can talk to."""

__version__ = "0.1.0"
