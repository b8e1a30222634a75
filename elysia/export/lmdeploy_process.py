"""The child process of `awq`: LMDeploy's auto_awq on our own rows, in LMDeploy's Python environment.

    python -m elysia.export.lmdeploy_process JOB.json

The job: {"model", "out" (a folder), "rows" (token ids, all of one length), "device" (auto, cpu or
cuda)}. LMDeploy's own calibration sets have to be downloaded, and its InternLM2 is another class than
ours: both are replaced here. It writes out/model.safetensors under the names that the model has in
memory, and prints {"device": …} as its last line. Of our modules only the InternLM2 model can be
imported here: that environment lacks our requirements.
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
    """Takes the place of the tokenizer, which is not needed: the rows are token ids already."""

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> StubTokenizer:
        """Nothing to read."""
        return cls()

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Nothing to write."""


def main(job: dict[str, Any]) -> None:
    """Quantize, and print on which device."""
    from lmdeploy.lite.apis import calibrate
    from lmdeploy.lite.apis.auto_awq import auto_awq

    internlm2.register()
    for table, name in (
        (calibrate.LAYER_TYPE_MAP, "LlamaDecoderLayer"),
        (calibrate.NORM_TYPE_MAP, "LlamaRMSNorm"),
        (calibrate.HEAD_NAME_MAP, "lm_head"),
    ):
        table[internlm2.ARCHITECTURE] = name
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
    """The tensors as they are in memory; a head that is tied to the embeddings only once."""
    from safetensors.torch import save_file

    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, str(Path(folder) / "model.safetensors"))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
