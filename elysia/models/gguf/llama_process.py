"""The child process of `llama_server`: llama.cpp's own HTTP server, until the parent goes away.

It reads one line of JSON settings from stdin, answers with one line on stdout ({"url"} or {"error"}),
and ends when stdin does: so it never outlives its parent, however that died.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any


def main() -> None:
    """Serve until stdin ends."""
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    # What llama.cpp prints belongs in the log, not between the lines of the protocol.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        server = start(settings)
        reply = {"url": server.listening_address}
    except Exception as error:
        reply = {"error": str(error) or type(error).__name__}
    print(json.dumps(reply), file=answer, flush=True)
    if "url" in reply:
        with contextlib.suppress(OSError, KeyboardInterrupt):
            while os.read(0, 4096):
                continue
    # An ordinary exit would wait for the server's threads until every reply is finished.
    os._exit(0)


def start(settings: dict[str, Any]) -> Any:
    """An xllamacpp.Server that listens on a free loopback port."""
    import signal

    import xllamacpp

    # Ctrl-C in a terminal reaches the whole process group, but the parent decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.port = 0
    params.api_keys = [settings["key"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.n_threads_http = settings["slots"] + 4
    params.embedding = settings["embedding"]
    params.n_gpu_layers = settings["gpu_layers"]
    params.ctx_shift = (
        False  # at the context's end the reply ends; the prompt's beginning is never dropped
    )
    params.kv_unified = False  # each slot has its own context, whatever the others use
    kind = {"f16": "F16", "f32": "F32"}[settings["cache"]]
    params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{kind}")
    if kind == "F32":  # flash attention would round what it reads to float16 again
        off = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.flash_attn_type = off
    params.fit_params = False  # llama.cpp must not shrink the sizes above to fit the memory
    params.cache_ram_mib = 0
    params.endpoint_metrics = True
    params.endpoint_slots = True
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
