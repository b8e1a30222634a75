"""The process that eSpeak NG lives in: `python -m elysia.voice.engines.espeak_process`.

eSpeak NG is GPL-3 and comes from the package espeakng-loader. Only this process loads it; it speaks
with the rest through pipes and ends when they close. Lines of JSON come in on stdin; frames go out
on stdout: a kind (1 byte), a length (4 bytes, little-endian), that many bytes. Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from typing import Any, BinaryIO

SOUND, DONE, FAULT, READY = b"s", b"d", b"f", b"r"
_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_NORMAL_RATE = 175  # words a minute
_SampleCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def send_frame(out: BinaryIO, kind: bytes, data: bytes) -> None:
    """One frame."""
    out.write(kind + struct.pack("<I", len(data)) + data)
    out.flush()


def serve(lines: BinaryIO, out: BinaryIO) -> None:
    """Say what the lines ask for until they end. A line: text, voice, speed, pitch."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = str(espeakng_loader.get_data_path()).encode()
    rate = library.espeak_Initialize(1, 60, data, 0)  # 1: samples come back by callback
    if rate <= 0:
        send_frame(out, FAULT, b"eSpeak NG did not start: its data was not found.")
        return

    def on_sound(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            send_frame(out, SOUND, ctypes.string_at(samples, 2 * count))
        return 0

    callback = _SampleCallback(on_sound)
    library.espeak_SetSynthCallback(callback)
    send_frame(out, READY, str(rate).encode())
    for line in lines:
        asked = json.loads(line)
        if library.espeak_SetVoiceByName(asked["voice"].encode()):
            send_frame(out, FAULT, f"eSpeak NG has no voice '{asked['voice']}'.".encode())
            continue
        library.espeak_SetParameter(_RATE, round(_NORMAL_RATE * asked["speed"]), 0)
        library.espeak_SetParameter(_PITCH, asked["pitch"], 0)
        text = asked["text"].encode()
        library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        send_frame(out, DONE, b"")


if __name__ == "__main__":
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library might print must not become sound
    try:
        serve(sys.stdin.buffer, pipe)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
