"""voice.json: what must be known of a VITS model to speak with it, beside its weights.

Also read from Hugging Face's own VITS and MMS folders, which have none. Knows nothing of weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from elysia.core.errors import VoiceError, nearest
from elysia.core.files import write_atomic
from elysia.voice.frontend.cleaners import CLEANERS, CleanedText, clean_text

CONFIG_FILE = "voice.json"
MAX_JSON_BYTES = 4 * 1024 * 1024  # bytes of a JSON file


@dataclass(frozen=True)
class VoiceConfig:
    """Symbols in the order of their ids (the first is the blank), and how to speak with them.

    `cleaner` is one of CLEANERS, or "characters": the text's own letters (MMS). `hop` is samples a
    frame. `source` tells where the weights come from.
    """

    symbols: tuple[str, ...]
    cleaner: str
    rate: int = 22_050
    hop: int = 256
    add_blank: bool = True
    lower: bool = False
    speakers: Mapping[str, int] = field(default_factory=dict)
    speaker_count: int = 1
    noise: float = 0.667
    noise_duration: float = 0.6
    source: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write voice.json into `folder`."""
        text = json.dumps({"version": 1, **asdict(self)}, ensure_ascii=False, indent=1)
        write_atomic(folder / CONFIG_FILE, text + "\n")

    @classmethod
    def read(cls, folder: Path) -> VoiceConfig:
        """The card of a folder, ours or Hugging Face's. VoiceError, with the file, without one."""
        path = folder / CONFIG_FILE
        if not path.is_file():
            return _from_hugging_face(folder)
        data = read_json(path)
        data.pop("version", None)
        try:
            card = cls(**{**data, "symbols": tuple(data["symbols"])})
            if card.cleaner not in (*CLEANERS, "characters") or not card.symbols:
                raise ValueError(f"cleaner {card.cleaner!r}")
            return card
        except (TypeError, KeyError, ValueError) as error:
            raise VoiceError(f"{path} is damaged ({error}); import the checkpoint again.") from None

    def resolve_speaker(self, asked: str | int) -> int:
        """A speaker's number, from a name or a number. VoiceError names the nearest."""
        if isinstance(asked, str) and asked in self.speakers:
            return self.speakers[asked]
        number = int(asked) if str(asked).isdecimal() else -1
        if 0 <= number < self.speaker_count:
            return number
        known = ", ".join(list(self.speakers)[:12]) or f"numbers below {self.speaker_count}"
        raise VoiceError(
            f"There is no speaker '{asked}', only {known}.{nearest(str(asked), self.speakers)}"
        )

    def clean_text(self, text: str, *, sandhi: bool = True) -> CleanedText:
        """A prepared text in this model's writing."""
        if self.cleaner != "characters":
            return clean_text(text, self.cleaner, sandhi=sandhi)
        return CleanedText(text.lower() if self.lower else text)

    def ids(self, symbols: str) -> list[int]:
        """Ids with blanks between; unknown symbols are left out."""
        table = {symbol: number for number, symbol in enumerate(self.symbols)}
        found = [table[char] for char in symbols if char in table]
        if not self.add_blank or not found:
            return found
        spread = [0] * (2 * len(found) + 1)
        spread[1::2] = found
        return spread


def _from_hugging_face(folder: Path) -> VoiceConfig:
    """Of a folder with config.json and vocab.json, as facebook/mms-tts-eng has them."""
    if not (folder / "config.json").is_file():
        raise VoiceError(
            f"{folder} is no VITS model: it has neither {CONFIG_FILE} nor config.json. "
            "Bring a checkpoint with: elysia voice import G_latest.pth finetune_speaker.json --name NAME"
        )
    config = read_json(folder / "config.json")
    if config.get("model_type") != "vits":
        raise VoiceError(f"{folder} is a {config.get('model_type')!r} model, not VITS.")
    vocabulary = read_json(folder / "vocab.json")
    settings = read_json(folder / "tokenizer_config.json", optional=True)
    for key, what in (("phonemize", "eSpeak's phonemes"), ("is_uroman", "uroman's romanisation")):
        if settings.get(key):
            raise VoiceError(f"{folder} wants {what} ({key}), which is not made here.")
    symbols = sorted(vocabulary, key=vocabulary.__getitem__)
    if sorted(vocabulary.values()) != list(range(len(symbols))):
        raise VoiceError(f"{folder / 'vocab.json'}: its ids are not 0 to {len(symbols) - 1}.")
    hop = 1
    for rate in config.get("upsample_rates", [8, 8, 2, 2]):
        hop *= rate
    return VoiceConfig(
        tuple(symbols), "characters", config.get("sampling_rate", 16_000), hop,
        settings.get("add_blank", True), bool(settings.get("normalize", True)),
        speaker_count=config.get("num_speakers", 1), noise=config.get("noise_scale", 0.667),
        noise_duration=config.get("noise_scale_duration", 0.8),
    )  # fmt: skip


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """A JSON object of bounded size. VoiceError with the file's name."""
    if not path.is_file():
        if optional:
            return {}
        raise VoiceError(f"{path} is missing.")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise VoiceError(f"{path} is larger than {MAX_JSON_BYTES} bytes: it is no config.")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise VoiceError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise VoiceError(f"{path} holds no object.")
    return data


EDGE_SAMPLES = 3  # samples that the first and the last convolution (7 taps) look to either side


def receptive_fields(config: Mapping[str, Any]) -> list[int]:
    """Frames to either side that the samples of a frame depend on: [of latents, and of what each
    upsampling gives], as VitsConfig names the sizes.

    >>> receptive_fields({"upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4],
    ...          "resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5]] * 3})
    [14, 10, 2, 1, 1]
    """
    blocks = max(
        sum(taps // 2 * (step + 1) for step in steps)
        for taps, steps in zip(
            config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True
        )
    )
    rates = list(config["upsample_rates"])
    need, found = EDGE_SAMPLES, []
    for i in reversed(range(len(rates))):
        need += blocks
        found.append(math.ceil(need / math.prod(rates[: i + 1])))
        taps = config["upsample_kernel_sizes"][i]
        need = math.ceil((need + taps - 1 - (taps - rates[i]) // 2) / rates[i])
    return [need + EDGE_SAMPLES, *reversed(found)]
