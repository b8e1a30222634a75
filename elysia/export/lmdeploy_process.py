"""LMDeploy's auto_awq on rows of our own, run by the Python of LMDeploy's environment.

    python -m elysia.export.lmdeploy_process JOB.json

The job: {"model", "out" (a folder), "rows" (token ids, all of one length), "device" (auto, cpu or
cuda)}. LMDeploy's own calibration sets lie on a hub, and its InternLM2 is another class than ours:
both are put right here. Writes out/model.safetensors under the names that the model has in memory,
and prints {"device": …} as its last line. Imports nothing of ours but the InternLM2 model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from elysia.models.architectures import internlm2

AWQ_BITS, AWQ_GROUP_SIZE = 4, 128


class StubTokenizer:
    """In place of the tokenizer, which the rows make needless."""

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> StubTokenizer:
        """Nothing to read."""
        return cls()

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Nothing to write."""


def main(job: dict[str, Any]) -> None:
    """Quantize, and say on which device."""
    from lmdeploy.lite.apis import calibrate
    from lmdeploy.lite.apis.auto_awq import auto_awq

    internlm2.register()
    for names, ours in (
        (calibrate.LAYER_TYPE_MAP, "LlamaDecoderLayer"),
        (calibrate.NORM_TYPE_MAP, "LlamaRMSNorm"),
        (calibrate.HEAD_NAME_MAP, "lm_head"),
    ):
        names[internlm2.ARCHITECTURE] = ours
    rows = job["rows"]
    calibrate.get_calib_loaders = lambda *_, **__: [torch.tensor([row]) for row in rows]
    calibrate.AutoTokenizer = StubTokenizer
    from transformers import PreTrainedModel

    setattr(PreTrainedModel, "save_pretrained", write_tensors)  # noqa: B010 - its type differs
    device = job["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    auto_awq(
        job["model"],
        work_dir=job["out"],
        calib_samples=len(rows),
        calib_seqlen=len(rows[0]) if rows else 0,
        w_bits=AWQ_BITS,
        w_group_size=AWQ_GROUP_SIZE,
        device=device,
        dtype="float16",
    )
    print(json.dumps({"device": device}))


def write_tensors(model: Any, folder: str, **_: Any) -> None:
    """The tensors as they are in memory; a head that is the embeddings only once."""
    from safetensors.torch import save_file

    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, str(Path(folder) / "model.safetensors"))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
