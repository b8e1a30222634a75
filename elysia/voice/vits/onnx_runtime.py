"""A VITS model in ONNX Runtime, which speaks without torch, and the export that checks its parity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elysia.core.errors import VoiceError
from elysia.voice.vits.config import read_json, receptive_fields

if TYPE_CHECKING:
    from elysia.voice.vits.modules import Array, TorchBackend

GRAPH_FILES = ("text.onnx", "flow.onnx", "decode.onnx")
SPEAKERS_FILE = "speakers.npy"
OPSET = 17
MAX_DIFFERENCE = 1e-3


class OnnxBackend:
    """See `modules.VitsBackend`."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._text, self._flow, self._decode = (
                onnxruntime.InferenceSession(
                    str(folder / name), options, providers=["CPUExecutionProvider"]
                )
                for name in GRAPH_FILES
            )
        except Exception as error:  # the runtime has no public class for its faults
            raise VoiceError("voice.onnx_unreadable", folder=folder, error=str(error)) from None
        # Graphs of earlier versions have no such input, and return the ends of a window, too.
        self._trims = any(node.name == "ends" for node in self._decode.get_inputs())
        self.receptive_field = receptive_fields(read_json(folder / "config.json"))[0]
        table = folder / SPEAKERS_FILE
        self._speakers = np.load(table, allow_pickle=False) if table.is_file() else None

    def text(self, ids: Array, speaker: Array | None, noise: Array) -> tuple[Array, Array, Array]:
        """See VitsBackend."""
        feeds = _feeds(speaker, ids=ids, noise=noise)
        means, deviations, durations = (out[0] for out in self._text.run(None, feeds))
        return means, deviations, durations

    def flow(self, latents: Array, speaker: Array | None) -> Array:
        """See VitsBackend."""
        out: Array = self._flow.run(None, _feeds(speaker, latents=latents))[0]
        return out

    def decode(self, latents: Array, speaker: Array | None, left: int, right: int) -> Array:
        """See VitsBackend."""
        feeds = _feeds(speaker, latents=latents)
        if self._trims:
            feeds["ends"] = np.array([left, right])
        samples: Array = self._decode.run(None, feeds)[0]
        if self._trims:
            return samples
        hop = len(samples) // latents.shape[2]
        return samples[left * hop : len(samples) - right * hop]

    def speaker(self, number: int) -> Array | None:
        """See VitsBackend."""
        return None if self._speakers is None else self._speakers[number][None, :, None]


def _feeds(speaker: Array | None, **inputs: Array) -> dict[str, Array]:
    return inputs if speaker is None else {**inputs, "speaker": speaker}


def export_onnx(model: Any, folder: Path) -> float:
    """Write the three graphs of a VitsModel and verify them; returns the largest difference to torch.

    Verified on other lengths than the example's. Raises VoiceError when the graphs differ too much.
    """
    import warnings

    import torch

    from elysia.voice.vits.fast_decoder import FastDecoder
    from elysia.voice.vits.modules import FlowModule, TextModule, TorchBackend

    reference = TorchBackend(model)  # folds the weight norms into the weights
    size, channels = model.config.speaker_embedding_size, model.config.flow_size
    many = model.config.num_speakers > 1
    speaker = (torch.zeros(1, size, 1),) if many else ()
    ids, noise = torch.zeros(1, 9, dtype=torch.long), torch.zeros(1, 2, 9)
    latents, ends = torch.zeros(1, channels, 20), torch.zeros(2, dtype=torch.long)
    graphs = (
        (TextModule(model), (ids, noise), ["ids", "noise"], ["means", "deviations", "durations"]),
        (FlowModule(model), (latents,), ["latents"], ["out"]),
        (FastDecoder(model.decoder), (latents, ends), ["latents", "ends"], ["samples"]),
    )
    time_axis = {"ids": 1, "noise": 2, "latents": 2, "means": 1, "deviations": 1, "durations": 1,
                 "out": 2, "samples": 0}  # fmt: skip
    for name, (part, example, inputs, outputs) in zip(GRAPH_FILES, graphs, strict=True):
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                part.eval(), (*example, *speaker), str(folder / name), dynamo=False,
                opset_version=OPSET, input_names=inputs + ["speaker"] * many, output_names=outputs,
                dynamic_axes={
                    n: {time_axis[n]: "time"} for n in (*inputs, *outputs) if n in time_axis
                },
            )  # fmt: skip
    if many:
        np.save(folder / SPEAKERS_FILE, model.embed_speaker.weight.detach().numpy())
    return verify_parity(reference, folder, model.config.vocab_size, channels, many)


def verify_parity(
    reference: TorchBackend, folder: Path, symbols: int, channels: int, many: bool
) -> float:
    """The largest difference between torch and ONNX over texts of 1 to 61 symbols.

    Compares torch's plain decoder with the fast one of the graph, at the ends of a sentence and inside.
    `many` says whether the model has several speakers. Raises VoiceError above MAX_DIFFERENCE.
    """
    exported = OnnxBackend(folder)
    random = np.random.default_rng(0)
    worst = 0.0
    for length in (1, 4, 9, 61):
        ids = random.integers(0, symbols, (1, length))
        noise = random.standard_normal((1, 2, length), dtype=np.float32)
        latents = random.standard_normal((1, channels, 2 * length + 1), dtype=np.float32)
        speaker = reference.speaker(0) if many else None
        pairs = [
            *zip(
                reference.text(ids, speaker, noise), exported.text(ids, speaker, noise), strict=True
            ),
            (reference.flow(latents, speaker), exported.flow(latents, speaker)),
            *(
                (
                    reference.decode(latents, speaker, *ends),
                    exported.decode(latents, speaker, *ends),
                )
                for ends in ((0, 0), (length, 0), (length // 2, length))
            ),
        ]
        worst = max(worst, *(float(np.abs(a - b).max()) for a, b in pairs))
    if not worst <= MAX_DIFFERENCE:
        raise VoiceError(
            "voice.onnx_differs", difference=f"{worst:.1e}", limit=f"{MAX_DIFFERENCE:g}"
        )
    return worst
