"""Small random VITS checkpoints in the original's layout, made name by name."""

import json

import pytest

SIZES = {
    "inter_channels": 16, "hidden_channels": 16, "filter_channels": 24, "n_heads": 2, "n_layers": 2,
    "kernel_size": 3, "p_dropout": 0.1, "resblock": "1", "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]], "upsample_rates": [4, 4],
    "upsample_initial_channel": 32, "upsample_kernel_sizes": [8, 8], "gin_channels": 8,
}  # fmt: skip


def wave_net(prefix, hidden, layers, speaker):
    """WN of the original: dilated convolutions under weight norm."""
    shapes = {}
    if speaker:
        shapes |= normed(f"{prefix}.cond_layer", (2 * hidden * layers, speaker, 1))
    for i in range(layers):
        out = 2 * hidden if i < layers - 1 else hidden
        shapes |= normed(f"{prefix}.in_layers.{i}", (2 * hidden, hidden, 5))
        shapes |= normed(f"{prefix}.res_skip_layers.{i}", (out, hidden, 1))
    return shapes


def normed(name, shape, bias=None):
    return {
        f"{name}.bias": (shape[0] if bias is None else bias,),
        f"{name}.weight_g": (shape[0], 1, 1),
        f"{name}.weight_v": shape,
    }


def conv(name, out, into, kernel=1):
    return {f"{name}.weight": (out, into, kernel), f"{name}.bias": (out,)}


def norm(name, size):
    return {f"{name}.gamma": (size,), f"{name}.beta": (size,)}


def separable(prefix, hidden):
    shapes = {}
    for i in range(3):
        shapes |= conv(f"{prefix}.convs_sep.{i}", hidden, 1, 3) | conv(
            f"{prefix}.convs_1x1.{i}", hidden, hidden
        )
        shapes |= norm(f"{prefix}.norms_1.{i}", hidden) | norm(f"{prefix}.norms_2.{i}", hidden)
    return shapes


def durations(hidden, speaker, stochastic):
    shapes = conv("dp.cond", hidden, speaker) if speaker else {}
    if not stochastic:
        for i, into in ((1, hidden), (2, 256)):
            shapes |= conv(f"dp.conv_{i}", 256, into, 3) | norm(f"dp.norm_{i}", 256)
        return shapes | conv("dp.proj", 1, 256)
    for post in ("", "post_"):
        shapes |= {f"dp.{post}flows.0.m": (2, 1), f"dp.{post}flows.0.logs": (2, 1)}
        for i in (1, 3, 5, 7):  # flips without weights stand between
            name = f"dp.{post}flows.{i}"
            shapes |= conv(f"{name}.pre", hidden, 1) | separable(f"{name}.convs", hidden)
            shapes |= conv(f"{name}.proj", 29, hidden)
        shapes |= conv(f"dp.{post}pre", hidden, 1 if post else hidden)
        shapes |= separable(f"dp.{post}convs", hidden) | conv(f"dp.{post}proj", hidden, hidden)
    return shapes


def generator_shapes(sizes, symbols, speakers, stochastic):
    """Name to shape of every tensor of an original generator."""
    hidden, inter = sizes["hidden_channels"], sizes["inter_channels"]
    speaker = sizes.get("gin_channels", 0)
    shapes = {"enc_p.emb.weight": (symbols, hidden)} | conv("enc_p.proj", 2 * inter, hidden)
    for i in range(sizes["n_layers"]):
        layer = f"enc_p.encoder.attn_layers.{i}"
        head = hidden // sizes["n_heads"]
        shapes |= {f"{layer}.emb_rel_k": (1, 9, head), f"{layer}.emb_rel_v": (1, 9, head)}
        for kind in "qkvo":
            shapes |= conv(f"{layer}.conv_{kind}", hidden, hidden)
        feed = f"enc_p.encoder.ffn_layers.{i}"
        shapes |= conv(f"{feed}.conv_1", sizes["filter_channels"], hidden, 3)
        shapes |= conv(f"{feed}.conv_2", hidden, sizes["filter_channels"], 3)
        for which in (1, 2):
            shapes |= norm(f"enc_p.encoder.norm_layers_{which}.{i}", hidden)
    shapes |= conv("enc_q.pre", hidden, 65) | conv("enc_q.proj", 2 * inter, hidden)
    shapes |= wave_net("enc_q.enc", hidden, 16, speaker)
    for i in (0, 2, 4, 6):
        shapes |= conv(f"flow.flows.{i}.pre", hidden, inter // 2) | conv(
            f"flow.flows.{i}.post", inter // 2, hidden
        )
        shapes |= wave_net(f"flow.flows.{i}.enc", hidden, 4, speaker)
    first = sizes["upsample_initial_channel"]
    shapes |= conv("dec.conv_pre", first, inter, 7)
    block = 0
    for i, kernel in enumerate(sizes["upsample_kernel_sizes"]):
        out = first // 2 ** (i + 1)
        shapes |= normed(f"dec.ups.{i}", (2 * out, out, kernel), bias=out)
        for size in sizes["resblock_kernel_sizes"]:
            for j in range(3):
                for convs in ("convs1", "convs2"):
                    shapes |= normed(f"dec.resblocks.{block}.{convs}.{j}", (out, out, size))
            block += 1
    shapes["dec.conv_post.weight"] = (1, out, 7)
    if speaker:
        shapes |= conv("dec.cond", first, speaker)
    if speakers:
        shapes["emb_g.weight"] = (speakers, speaker)
    return shapes | durations(hidden, speaker, stochastic)


@pytest.fixture
def make_checkpoint(tmp_path):
    """(speakers, stochastic, …) -> paths of a checkpoint and its config, and the tensors."""
    torch = pytest.importorskip("torch")
    from elysia.voice.frontend.cleaners import BOPOMOFO

    def make(
        speakers=3, stochastic=True, symbols=BOPOMOFO, cleaner="chinese_cleaners", config=None
    ):
        sizes = {**SIZES, "gin_channels": SIZES["gin_channels"] if speakers else 0}
        random = torch.Generator().manual_seed(speakers * 2 + stochastic)
        shapes = generator_shapes(sizes, len(symbols), speakers, stochastic)
        tensors = {}
        for name, shape in shapes.items():
            values = torch.randn(shape, generator=random) * 0.15
            if name.endswith(("gamma", "weight_g")):
                values = values.abs() + 0.5
            tensors[name] = values
        changes = dict(config or {})
        written = {
            "data": {"text_cleaners": [cleaner], "sampling_rate": 16000, "filter_length": 128, "add_blank": True,
                     "n_speakers": speakers},
            "model": {**sizes, **changes.pop("model", {})}, "symbols": list(symbols),
            "speakers": {f"s{i}": i for i in range(speakers)}, **changes,
        }  # fmt: skip
        weights, settings = tmp_path / "G_latest.pth", tmp_path / "finetune_speaker.json"
        torch.save(
            {"model": tensors, "iteration": 7, "optimizer": None, "learning_rate": 2e-4}, weights
        )
        settings.write_text(json.dumps(written))
        return weights, settings, tensors

    return make
