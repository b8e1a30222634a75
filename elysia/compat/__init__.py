"""Compatibility with other projects' files: XTuner's configs."""

__all__: list[str] = []
