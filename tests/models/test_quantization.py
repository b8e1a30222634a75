"""AWQ's words of eight numbers, and folders that hold them."""

import pytest
import torch

from elysia.core.errors import ModelError
from elysia.models import loading, quantization


def test_a_word_holds_eight_numbers_in_awqs_order():
    # From the lowest four bits upwards: the numbers at 0, 2, 4, 6, 1, 3, 5, 7.
    word = sum(place << (4 * k) for k, place in enumerate((0, 2, 4, 6, 1, 3, 5, 7)))
    unpacked = quantization.unpack_awq(torch.tensor([[word]], dtype=torch.int32))
    assert unpacked.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_packing_is_undone_by_unpacking():
    numbers = torch.randint(0, 16, (6, 40), generator=torch.Generator().manual_seed(0))
    words = quantization.pack_awq(numbers)
    assert words.dtype == torch.int32 and words.shape == (6, 5) and (words < 0).any()
    assert torch.equal(quantization.unpack_awq(words).long(), numbers)


def test_a_weight_is_its_number_less_the_zero_times_the_scale_of_its_group():
    numbers = torch.arange(16).repeat(16, 1)  # (inputs, outputs)
    zeros = torch.tensor([[8] * 16, [3] * 16])
    scales = torch.tensor([[0.5] * 16, [2.0] * 16]).half()
    weight = quantization.dequantize_awq(
        quantization.pack_awq(numbers), quantization.pack_awq(zeros), scales
    )
    assert weight.shape == (16, 16)
    assert weight[5].tolist() == [(5 - 8) * 0.5] * 8 + [(5 - 3) * 2.0] * 8


def test_other_layouts_and_lacking_parts_are_sentences(tiny_llama, tmp_path):
    import json
    import shutil

    folder = shutil.copytree(tiny_llama, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    for changes, words in (
        ({"bits": 4, "version": "gemv"}, "gemv"), ({"bits": 8, "version": "gemm"}, "8 bits"),
    ):  # fmt: skip
        config["quantization_config"] = {"quant_method": "awq", **changes}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=words):
            loading.load_causal_lm(folder, device="cpu")
    from safetensors.torch import save_file

    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "version": "gemm"}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"a.qweight": torch.zeros(8, 1).int()}, str(folder / "model.safetensors"))
    with pytest.raises(ModelError, match="a lacks qzeros, scales"):
        loading.load_causal_lm(folder, device="cpu")
