"""voice.json: what is needed to speak with a VITS model, beside its weights. Needs no torch.

Hugging Face's own VITS and MMS folders have no such file; for them it is derived from config.json and
vocab.json.
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
from elysia.core.i18n import Text
from elysia.voice.frontend.cleaners import CLEANERS, CleanedText, clean_text

CONFIG_FILE = "voice.json"
MAX_JSON_BYTES = 4 * 1024 * 1024  # bytes of a JSON file


@dataclass(frozen=True)
class VoiceConfig:
    """The symbols of a model in the order of their ids (0 is the blank), and how to speak with them.

    `cleaner` is one of CLEANERS, or "characters" for the letters of the text itself (MMS). `hop` is
    samples per frame, `rate` samples per second. `source` records where the weights come from.
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
        """The config of a model folder, ours or Hugging Face's. Raises VoiceError, naming the file."""
        path = folder / CONFIG_FILE
        if not path.is_file():
            return _from_hugging_face(folder)
        data = read_json(path)
        data.pop("version", None)
        try:
            config = cls(**{**data, "symbols": tuple(data["symbols"])})
            if config.cleaner not in (*CLEANERS, "characters") or not config.symbols:
                raise ValueError(f"cleaner {config.cleaner!r}")
            return config
        except (TypeError, KeyError, ValueError) as error:
            raise VoiceError("voice.damaged_config", path=path, error=str(error)) from None

    def resolve_speaker(self, speaker: str | int) -> int:
        """A speaker's number, from a name or a number. Raises VoiceError, naming the nearest."""
        if isinstance(speaker, str) and speaker in self.speakers:
            return self.speakers[speaker]
        number = int(speaker) if str(speaker).isdecimal() else -1
        if 0 <= number < self.speaker_count:
            return number
        known = list(self.speakers)[:12] or Text(
            "voice.numbers_below", {"count": self.speaker_count}
        )
        raise VoiceError(
            "voice.no_such_speaker", speaker=speaker, known=known,
            hint=nearest(str(speaker), self.speakers),
        )  # fmt: skip

    def clean_text(self, text: str, *, sandhi: bool = True) -> CleanedText:
        """A normalized text in this model's symbols."""
        if self.cleaner != "characters":
            return clean_text(text, self.cleaner, sandhi=sandhi)
        return CleanedText(text.lower() if self.lower else text)

    def encode_symbols(self, symbols: str) -> list[int]:
        """The ids of `symbols`, spaced by blanks if the model wants them; unknown symbols are left out."""
        table = {symbol: number for number, symbol in enumerate(self.symbols)}
        ids = [table[char] for char in symbols if char in table]
        if not self.add_blank or not ids:
            return ids
        spaced = [0] * (2 * len(ids) + 1)
        spaced[1::2] = ids
        return spaced


def _from_hugging_face(folder: Path) -> VoiceConfig:
    """From config.json and vocab.json, as facebook/mms-tts-eng has them."""
    if not (folder / "config.json").is_file():
        raise VoiceError("voice.not_vits_folder", folder=folder, file=CONFIG_FILE)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "vits":
        raise VoiceError("voice.not_vits", folder=folder, kind=repr(config.get("model_type")))
    vocabulary = read_json(folder / "vocab.json")
    settings = read_json(folder / "tokenizer_config.json", optional=True)
    for key, what in (("phonemize", "eSpeak's phonemes"), ("is_uroman", "uroman's romanisation")):
        if settings.get(key):
            raise VoiceError("voice.unsupported_input", folder=folder, what=what, key=key)
    symbols = sorted(vocabulary, key=vocabulary.__getitem__)
    if sorted(vocabulary.values()) != list(range(len(symbols))):
        raise VoiceError("voice.bad_vocab", path=folder / "vocab.json", last=len(symbols) - 1)
    hop = math.prod(config.get("upsample_rates", [8, 8, 2, 2]))
    return VoiceConfig(
        tuple(symbols), "characters", config.get("sampling_rate", 16_000), hop,
        settings.get("add_blank", True), bool(settings.get("normalize", True)),
        speaker_count=config.get("num_speakers", 1), noise=config.get("noise_scale", 0.667),
        noise_duration=config.get("noise_scale_duration", 0.8),
    )  # fmt: skip


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """A JSON object of at most MAX_JSON_BYTES. Raises VoiceError, naming the file."""
    if not path.is_file():
        if optional:
            return {}
        raise VoiceError("voice.file_missing", path=path)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise VoiceError("voice.config_too_large", path=path, limit=MAX_JSON_BYTES)
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise VoiceError("voice.not_json", path=path, error=str(error)) from None
    if not isinstance(data, dict):
        raise VoiceError("voice.no_object", path=path)
    return data


EDGE_SAMPLES = 3  # samples that the first and the last convolution (7 taps) look to either side


def receptive_fields(config: Mapping[str, Any]) -> list[int]:
    """How many frames to either side the decoder's output depends on: of the latents, then of the output
    of each upsampling. `config` has VitsConfig's names.

    >>> receptive_fields({"upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4],
    ...     "resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5]] * 3})
    [14, 10, 2, 1, 1]
    """
    blocks = max(
        sum(taps // 2 * (step + 1) for step in steps)
        for taps, steps in zip(
            config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True
        )
    )
    rates = list(config["upsample_rates"])
    # From the output backwards; `need` is in samples of the stage that is looked at.
    need, fields = EDGE_SAMPLES, []
    for i in reversed(range(len(rates))):
        need += blocks
        fields.append(math.ceil(need / math.prod(rates[: i + 1])))
        taps = config["upsample_kernel_sizes"][i]
        need = math.ceil((need + taps - 1 - (taps - rates[i]) // 2) / rates[i])
    return [need + EDGE_SAMPLES, *reversed(fields)]
