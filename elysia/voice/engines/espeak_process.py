"""The child process that runs eSpeak NG; standard library only.

eSpeak NG is GPL-3 and comes from the package espeakng-loader. Only this process loads it; it talks to
`engines.espeak` through pipes and ends when they close. Requests are lines of JSON on stdin; answers
are frames on stdout: a kind (1 byte), a length (4 bytes, little-endian), and that many bytes. FAULT
holds the name of the voice that eSpeak lacks, or nothing when it did not start at all.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from typing import Any, BinaryIO

SOUND, DONE, FAULT, READY = b"s", b"d", b"f", b"r"
_UTF8 = 1  # espeakCHARS_UTF8
_RATE, _PITCH = 1, 3  # of espeak_PARAMETER
_NORMAL_RATE = 175  # words per minute
_SampleCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def send_frame(out: BinaryIO, kind: bytes, data: bytes) -> None:
    """Write one frame."""
    out.write(kind + struct.pack("<I", len(data)) + data)
    out.flush()


def serve(lines: BinaryIO, out: BinaryIO) -> None:
    """Speak what each line asks for (keys text, voice, speed, pitch), until the lines end."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = str(espeakng_loader.get_data_path()).encode()
    rate = library.espeak_Initialize(1, 60, data, 0)  # 1: samples come through a callback
    if rate <= 0:
        send_frame(out, FAULT, b"")
        return

    def on_sound(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            send_frame(out, SOUND, ctypes.string_at(samples, 2 * count))
        return 0

    callback = _SampleCallback(on_sound)  # kept in a variable: ctypes holds no reference of its own
    library.espeak_SetSynthCallback(callback)
    send_frame(out, READY, str(rate).encode())
    for line in lines:
        request = json.loads(line)
        if library.espeak_SetVoiceByName(request["voice"].encode()):
            send_frame(out, FAULT, request["voice"].encode())
            continue
        library.espeak_SetParameter(_RATE, round(_NORMAL_RATE * request["speed"]), 0)
        library.espeak_SetParameter(_PITCH, request["pitch"], 0)
        text = request["text"].encode()
        library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        send_frame(out, DONE, b"")


if __name__ == "__main__":
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints must not end up among the samples
    try:
        serve(sys.stdin.buffer, pipe)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
