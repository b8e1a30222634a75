"""VITS models: their config, the network in torch and in ONNX Runtime, and the import of checkpoints.

`engines.vits` speaks with them. Only `VoiceConfig` is offered here, because it needs no torch.
Paper: https://arxiv.org/abs/2106.06103.
"""

from elysia.voice.vits.config import VoiceConfig

__all__ = ["VoiceConfig"]
