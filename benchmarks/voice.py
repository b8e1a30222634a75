"""`make bench-voice`: how fast each voice speaks, and how soon, alone and beside a busy language model.

Full-size VITS with random weights (the time does not depend on them), and eSpeak NG. The real-time factor
is seconds of work per second of audio; the first sound is timed from the complete sentence. Asserts nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

TEXT = "今天天气不错，我们一起去公园散步，好不好？"
FRAMES_PER_SYMBOL = 3  # a trained voice spends some 35 ms on a symbol, blanks counted


def make_vits(folder: Path) -> None:
    """A full-size model folder, exported to ONNX, too, with durations like those of speech."""
    import torch
    from safetensors.torch import save_file
    from transformers import VitsConfig, VitsModel

    from elysia.voice.frontend.cleaners import CJKE2
    from elysia.voice.vits.config import VoiceConfig
    from elysia.voice.vits.onnx_runtime import export_onnx

    torch.manual_seed(0)
    config = VitsConfig(
        vocab_size=len(CJKE2), num_speakers=10, speaker_embedding_size=256, sampling_rate=22_050,
        use_stochastic_duration_prediction=True,
    )  # fmt: skip
    model = VitsModel(config).eval()
    model.duration_predictor.flows[0].translate.data[0] = -torch.log(
        torch.tensor(FRAMES_PER_SYMBOL - 0.5)
    )
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()},
        str(folder / "model.safetensors"),
    )
    (folder / "config.json").write_text(config.to_json_string())
    VoiceConfig(CJKE2, "cjke_cleaners2", speaker_count=10, noise_duration=0.0).write(folder)
    print(f"ONNX against torch: {export_onnx(model, folder):.1e}")


@contextmanager
def busy_model() -> Iterator[None]:
    """A process that multiplies like a language model that generates, on every core it gets."""
    stop = multiprocessing.Event()
    worker = multiprocessing.Process(target=_multiply, args=(stop,), daemon=True)
    worker.start()
    time.sleep(8)
    try:
        yield
    finally:
        stop.set()
        worker.join(20)


def _multiply(stop: object) -> None:
    import torch

    weights = [torch.randn(2048, 2048) for _ in range(24)]
    x = torch.randn(1, 2048)
    while not stop.is_set():  # type: ignore[attr-defined]
        for weight in weights:
            x = (x @ weight).tanh()


def measure(voice: object, rounds: int) -> dict[str, float]:
    """Medians over `rounds`: real-time factor and seconds to the first sound, by the clock and by
    this process's work alone, which other programs on the machine do not change.
    """
    firsts, factors, first_works, works = [], [], [], []
    for _ in range(rounds):
        start, first, seconds = time.perf_counter(), 0.0, 0.0
        work, first_work = time.process_time(), 0.0
        for pcm in voice.synthesize(TEXT):  # type: ignore[attr-defined]
            first = first or time.perf_counter() - start
            first_work = first_work or time.process_time() - work
            seconds += pcm.seconds
        firsts.append(first)
        first_works.append(first_work)
        works.append((time.process_time() - work) / seconds)
        factors.append((time.perf_counter() - start) / seconds)
    return {
        "sound_s": round(seconds, 2),
        "rtf": round(statistics.median(factors), 3),
        "first_s": round(statistics.median(firsts), 3),
        "cpu_rtf": round(statistics.median(works), 3),
        "cpu_first_s": round(statistics.median(first_works), 3),
    }


def iter_engines(folder: Path) -> Iterator[tuple[str, object]]:
    """Every engine, and VITS by threads and backend."""
    from elysia.voice.engines.espeak import EspeakEngine
    from elysia.voice.engines.vits import VitsEngine

    yield "espeak", EspeakEngine()
    yield "vits onnx, 1 thread", VitsEngine(folder, backend="onnx", threads=1)
    yield "vits onnx, 2 threads", VitsEngine(folder, backend="onnx", threads=2)
    yield "vits torch", VitsEngine(folder, backend="torch")


def report_parts(folder: Path, rounds: int) -> None:
    """For each part of full-size VITS: multiply-adds and this process's work per second of audio, beside
    the time of a large matrix product on one thread with as many.
    """
    import numpy as np
    import torch

    from elysia.voice.vits.modules import load_vits_model, remove_weight_norm
    from elysia.voice.vits.onnx_runtime import OnnxBackend

    symbols, frames, window = 144, 430, 80
    backend, random = OnnxBackend(folder), np.random.default_rng(0)
    speaker, field = backend.speaker(0), backend.receptive_field
    ids = random.integers(0, 20, (1, symbols))
    noise = random.standard_normal((1, 2, symbols), dtype=np.float32)
    latents = random.standard_normal((1, 192, frames), dtype=np.float32)
    near = np.ascontiguousarray(latents[:, :, : window + 2 * field])
    square = random.standard_normal((1024, 1024), dtype=np.float32)
    matrix = torch.from_numpy(square)
    torch.set_num_threads(1)
    peak = 1024**3 / least(rounds, lambda: matrix @ matrix) / 1e9
    model = remove_weight_norm(load_vits_model(folder))
    a_second = 22_050 / 256
    print(f"matrix product, one thread: {peak:.1f} G multiply-adds a second")
    text = macs(model.text_encoder, torch.from_numpy(ids), speaker)
    flow = macs(model.flow, torch.from_numpy(latents), speaker)
    decoder = macs(model.decoder, torch.from_numpy(latents), speaker)
    for name, count, work, sound in (
        ("text", text, lambda: backend.text(ids, speaker, noise), frames),
        ("flow", flow, lambda: backend.flow(latents, speaker), frames),
        ("decoder", decoder, lambda: backend.decode(near, speaker, field, field), window),
    ):
        each = count * a_second / frames / 1e9
        print(
            f"{name:8} {each:6.2f} G plain multiply-adds a second of sound, at that rate "
            f"{each / peak:.3f} s; {least(rounds, work) * a_second / sound:.3f} s of work",
            flush=True,
        )


def least(rounds: int, work: Callable[[], object]) -> float:
    """Seconds of this process's work in the fastest of some rounds."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def macs(part: object, inputs: object, speaker: object) -> int:
    """Multiply-adds of the convolutions and products in a plain part."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        name = type(part).__name__
        mask = torch.ones(1, 1, inputs.shape[-1])  # type: ignore[attr-defined]
        if name == "VitsTextEncoder":
            part(inputs, mask.transpose(1, 2))  # type: ignore[operator]
        elif name == "VitsHifiGan":
            part(inputs, torch.from_numpy(speaker))  # type: ignore[operator]
        else:
            part(inputs, mask, torch.from_numpy(speaker), reverse=True)  # type: ignore[operator]
    return counter.get_total_flops() // 2


def soak(minutes: float, folder: Path) -> dict[str, object]:
    """Speak without pause while some listeners leave; memory by the minute, and what is left at the end.

    Threads, processes and files are counted against those of before; files in a temporary folder that
    is this process's and its children's alone.
    """
    from elysia.voice.engines.espeak import EspeakEngine
    from elysia.voice.engines.vits import VitsEngine
    from elysia.voice.streaming import TTSWorker

    workers = [TTSWorker(EspeakEngine()), TTSWorker(VitsEngine(folder, backend="onnx"))]
    temporary = folder / "temporary"
    temporary.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    threads, processes, began, count = threading.active_count(), children(), time.monotonic(), 0
    by_minute: list[float] = []
    while (passed := time.monotonic() - began) < minutes * 60:
        if passed >= 60 * (len(by_minute) + 1):
            gc.collect()
            by_minute.append(round(memory(), 1))
        for number, worker in enumerate(workers):
            reply = worker.open_stream()
            reply.write(f"第{count}句，{TEXT}{TEXT}")
            reply.end()
            for heard, _ in enumerate(reply.sound()):
                if count % 3 == number and heard == 1:
                    break  # a listener who leaves
            count += 1
    gc.collect()
    by_minute.append(round(memory(), 1))
    for worker in workers:
        worker.close()
    return {
        "minutes": minutes, "replies": count, "memory_mib": by_minute,
        "threads_left": threading.active_count() - threads, "processes_left": children() - processes,
        "files_left": len(list(temporary.iterdir())),
    }  # fmt: skip


def memory() -> float:
    """This process's resident memory, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def children() -> int:
    """Processes whose parent this is."""
    mine = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            mine += int(status.read_text().rsplit(")", 1)[1].split()[1]) == os.getpid()
        except OSError:
            continue
    return mine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--only", default="", metavar="NAME", help="voices whose name holds this")
    parser.add_argument("--parts", action="store_true", help="what each part of VITS costs")
    parser.add_argument("--no-load", action="store_true", help="only alone")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_vits(folder)
        if args.parts:
            report_parts(folder, args.rounds)
            return
        if args.soak:
            with nullcontext() if args.no_load else busy_model():
                print(json.dumps(soak(args.soak, folder)))
            return
        report(folder, args.rounds, "alone", args.only)
        if not args.no_load:
            with busy_model():
                report(folder, args.rounds, "beside a busy model", args.only)


def report(folder: Path, rounds: int, where: str, only: str) -> None:
    """One line per engine, each warmed up with a sentence."""
    for name, voice in iter_engines(folder):
        if only not in name:
            continue
        list(voice.synthesize("好。"))  # type: ignore[attr-defined]
        figures = measure(voice, rounds)
        print(f"{where:20} {name:22} {json.dumps(figures)} {memory():.0f} MiB", flush=True)
        voice.close()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
