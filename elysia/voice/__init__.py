"""Speech synthesis: text is cut into sentences, normalized, turned into phonemes, and spoken by an engine.

Open a voice by its name with `find_voice(name).open()`; speak a reply while it is being written with a
`TTSWorker`. Engines lie in `engines`, the text front end in `frontend`, VITS in `vits`, its training in
`dataset` and `training`.
"""

from elysia.voice.base import AudioChunk, TTSEngine
from elysia.voice.registry import VoiceFile, find_voice, list_voices
from elysia.voice.streaming import SpeechStream, SpokenChunk, TTSWorker, TTSWorkerPool

__all__ = [
    "AudioChunk",
    "SpeechStream",
    "SpokenChunk",
    "TTSEngine",
    "TTSWorker",
    "TTSWorkerPool",
    "VoiceFile",
    "find_voice",
    "list_voices",
]
