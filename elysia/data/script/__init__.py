"""From a script (a play, subtitles, a novel, a chat log) to rows in which one character answers, and to a
draft of its card and lorebook.
"""

from elysia.data.script.character_draft import draft_card, draft_lorebook
from elysia.data.script.compile_rows import CompiledScript, CompileOptions, compile_lines
from elysia.data.script.script_line import ScriptLine
from elysia.data.script.script_reader import read_script

__all__ = [
    "CompileOptions",
    "CompiledScript",
    "ScriptLine",
    "compile_lines",
    "draft_card",
    "draft_lorebook",
    "read_script",
]
