"""Recordings become a dataset for training: cleaned clips, their spectrograms, a manifest and a report.

`prepare_dataset` writes it; `ClipManifest` reads it.
"""

from elysia.voice.dataset.manifest import AudioClip, ClipManifest

__all__ = ["AudioClip", "ClipManifest"]
