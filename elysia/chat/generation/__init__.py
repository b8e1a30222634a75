"""Writing replies: who speaks next, the turns under way and their workers, a reply while it grows.

`turn_job` and `scheduler` are imported from their modules: they need the characters, which need the
selection of speakers from here.
"""

from elysia.chat.generation.priority import PriorityGate
from elysia.chat.generation.reply_stream import ReplyStream, SpeakerPrefixStripper
from elysia.chat.generation.speaker_selection import SelectionReason, select_speaker

__all__ = [
    "PriorityGate",
    "ReplyStream",
    "SelectionReason",
    "SpeakerPrefixStripper",
    "select_speaker",
]
