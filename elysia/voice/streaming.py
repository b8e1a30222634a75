"""Speech while the reply is still being written: sentences in, sound out, in order.

One worker thread a voice: two characters' voices are made side by side, one voice never overlaps
itself, and listeners of one voice take turns by sentence. A reply is an `SpeechStream`: pieces of text
are pushed into it by whoever writes, sound is taken out by whoever listens; nobody else hears it.
`stop` silences it at once. Knows nothing of language models, of pages, or of how sound is played.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from elysia.core.errors import VoiceError
from elysia.voice.base import AudioChunk, TTSEngine
from elysia.voice.sentence_splitter import StreamingSentenceSplitter

log = logging.getLogger(__name__)

MAX_WAITING_SENTENCES = 64  # of one reply waiting to be said; beyond, a sentence is left out
MAX_AHEAD_SECONDS = 30.0  # seconds of sound made before it is heard; then others have their turn
CACHE_SECONDS = 120.0  # of sound kept for sentences that come again
MAX_CACHED_SECONDS = 10.0  # seconds of one sentence


@dataclass(frozen=True)
class SpokenChunk:
    """A piece of sound and the sentence it belongs to; `number` counts the reply's sentences."""

    number: int
    text: str
    audio: AudioChunk


class SpeechStream:
    """One reply of one character to one listener. Made by `Speaker.begin`."""

    def __init__(
        self, speaker: TTSWorker, speed: float, on_fault: Callable[[VoiceError], None] | None
    ) -> None:
        self.speed = speed
        self.fault: VoiceError | None = None
        self._speaker = speaker
        self._changed = speaker._changed  # guards everything below
        self._on_fault = on_fault
        self._sentences = StreamingSentenceSplitter()
        self._waiting: deque[tuple[int, str]] = deque()
        self._sound: deque[SpokenChunk] = deque()
        self._ahead = 0.0
        self._count = 0
        self._busy = self._ended = self._stopped = False

    def write(self, piece: str) -> None:
        """More of the reply's text. Never waits for sound; does nothing once stopped."""
        self._order(self._sentences.push(piece))

    def end(self) -> None:
        """No more text comes; what is left is said, then the sound ends."""
        self._order(self._sentences.flush())
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Silence: what is being made is given up, what waits is dropped, listeners are let go."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._sound.clear()
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        """Whether it was silenced."""
        return self._stopped

    def sound(self, timeout: float | None = None) -> Iterator[SpokenChunk]:
        """The sound in order, as it is made, until the reply's end or `stop`.

        Leaving the iterator early, or `timeout` seconds without sound, stops the utterance.
        """
        whole = False
        try:
            while (spoken := self._next(timeout)) is not None:
                yield spoken
            whole = True
        finally:
            if not whole:
                self.stop()

    def _next(self, timeout: float | None) -> SpokenChunk | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._sound or self._over(), timeout):
                self._stopped = True
            if self._stopped or not self._sound:
                return None
            spoken = self._sound.popleft()
            self._ahead -= spoken.audio.seconds
            self._changed.notify_all()
            return spoken

    def _over(self) -> bool:
        return self._stopped or (self._ended and not self._waiting and not self._busy)

    def _order(self, sentences: list[str]) -> None:
        with self._changed:
            for text in sentences:
                if self._stopped or self.fault is not None:
                    return
                if len(self._waiting) < MAX_WAITING_SENTENCES:
                    self._waiting.append((self._count, text))
                else:
                    log.warning("She has too much to say: a sentence was left out.")
                self._count += 1
            self._changed.notify_all()

    def _hungry(self) -> bool:
        """Whether a sentence of it may be made now."""
        return bool(self._waiting) and self._ahead < MAX_AHEAD_SECONDS

    def _hear(self, spoken: SpokenChunk) -> bool:
        """Put sound where the listener takes it; False once nobody listens."""
        with self._changed:
            if self._stopped:
                return False
            self._sound.append(spoken)
            self._ahead += spoken.audio.seconds
            self._changed.notify_all()
            return True

    def _fail(self, error: VoiceError) -> None:
        """The voice is gone: the reply is written on in silence, and that is said once."""
        with self._changed:
            self.fault = error
            self._waiting.clear()
        log.warning("%s She writes on in silence.", error)
        if self._on_fault is not None:
            self._on_fault(error)


class TTSWorker:
    """A voice and the one thread that uses it."""

    def __init__(self, voice: TTSEngine, *, speed: float = 1.0) -> None:
        self._voice = voice
        self._speed = speed
        self._changed = threading.Condition()  # its lock may be taken again by its holder
        self._utterances: list[SpeechStream] = []
        self._cache: OrderedDict[tuple[str, float], list[AudioChunk]] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._warm = not hasattr(voice, "warm")  # a voice that has nothing to load

    def warm(self) -> None:
        """Let a voice that must be loaded be loaded now, on its own thread; does not wait."""
        with self._changed:
            if not self._warm:
                self._start()

    def begin(
        self, speed: float = 1.0, on_fault: Callable[[VoiceError], None] | None = None
    ) -> SpeechStream:
        """A new reply; `speed` multiplies the voice's own."""
        utterance = SpeechStream(self, speed * self._speed, on_fault)
        with self._changed:
            self._utterances.append(utterance)
            self._start()
        return utterance

    def _start(self) -> None:
        self._closing = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="voice", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Silence everything, end the thread and the voice's processes."""
        with self._changed:
            self._closing = True
            for utterance in self._utterances:
                utterance.stop()
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout=30)
        self._voice.close()

    def _work(self) -> None:
        if not self._warm:
            self._warm = True
            try:
                self._voice.warm()  # type: ignore[attr-defined]
            except Exception as error:  # the first sentence says it to whoever listens
                log.info("A voice could not be loaded ahead: %s", error)
        while (chosen := self._chosen()) is not None:
            utterance, number, text = chosen
            try:
                self._say(utterance, number, text)
            except VoiceError as error:
                utterance._fail(error)
            except Exception as error:  # a voice's own mistake must not end everybody's voice
                log.exception("A voice failed")
                utterance._fail(VoiceError(f"The voice failed: {type(error).__name__}: {error}."))
            finally:
                with self._changed:
                    utterance._busy = False
                    self._changed.notify_all()

    def _chosen(self) -> tuple[SpeechStream, int, str] | None:
        """Wait for a sentence to say; the utterance longest without a turn comes first."""
        with self._changed:
            while not self._closing:
                self._utterances = [u for u in self._utterances if not u._over()]
                for utterance in self._utterances:
                    if utterance._hungry():
                        self._utterances.remove(utterance)
                        self._utterances.append(utterance)
                        utterance._busy = True
                        return utterance, *utterance._waiting.popleft()
                self._changed.wait()
        return None

    def _say(self, utterance: SpeechStream, number: int, text: str) -> None:
        key = (text, utterance.speed)
        cached = self._cache.get(key)
        if cached is not None:
            self._cache.move_to_end(key)
            for pcm in cached:
                utterance._hear(SpokenChunk(number, text, pcm))
            return
        kept: list[AudioChunk] = []
        pieces = self._voice.synthesize(text, utterance.speed)
        try:
            for pcm in pieces:
                if not utterance._hear(SpokenChunk(number, text, pcm)):
                    return
                kept.append(pcm)
        finally:
            if close := getattr(pieces, "close", None):
                close()  # a voice that was left must not go on
        self._keep(key, kept)

    def _keep(self, key: tuple[str, float], pieces: list[AudioChunk]) -> None:
        if sum(piece.seconds for piece in pieces) > MAX_CACHED_SECONDS:
            return
        self._cache[key] = pieces
        while sum(p.seconds for sound in self._cache.values() for p in sound) > CACHE_SECONDS:
            self._cache.popitem(last=False)


class TTSWorkerPool:
    """A speaker for each voice that somebody uses; a group's characters have one each."""

    def __init__(self, open_voice: Callable[[str], tuple[TTSEngine, float]]) -> None:
        self._open = open_voice
        self._speakers: dict[str, TTSWorker] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> TTSWorker:
        """The speaker of a voice's name, opened at first use. VoiceError when there is none."""
        with self._lock:
            if name not in self._speakers:
                voice, speed = self._open(name)
                self._speakers[name] = TTSWorker(voice, speed=speed)
            return self._speakers[name]

    def close(self) -> None:
        """Close every one."""
        with self._lock:
            speakers, self._speakers = list(self._speakers.values()), {}
        for speaker in speakers:
            speaker.close()


def iter_in_turn(utterances: list[SpeechStream]) -> Iterator[tuple[int, SpokenChunk]]:
    """A group's sound: whoever began first is heard to the end, then the next; never two at once.

    Each is made meanwhile, so the next begins without a wait.
    """
    for number, utterance in enumerate(utterances):
        for spoken in utterance.sound():
            yield number, spoken
