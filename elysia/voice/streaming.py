"""Speech while a reply is still being written: text goes in piece by piece, audio comes out in order.

A `TTSWorker` owns one engine and the only thread that uses it, so one voice never overlaps itself;
two characters' voices are synthesized side by side. A reply is a `SpeechStream`: its writer pushes
text, its listener takes audio, and nobody else hears it. Streams of one worker take turns sentence by
sentence. `SpeechStream.stop` silences a reply at once.

Locks: a stream has a lock of its own, and tells the worker of a change only after releasing it. The
worker calls its streams while it holds its own lock, so the order is always worker, then stream.
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

MAX_WAITING_SENTENCES = 64  # of one reply; beyond, a sentence is left out
MAX_AHEAD_SECONDS = 30.0  # of audio that nobody has heard yet; then other streams have their turn
CACHE_SECONDS = 120.0  # of audio cached for sentences that come again
MAX_CACHED_SECONDS = 10.0  # of one sentence
CLOSE_TIMEOUT = 30.0  # seconds to wait for the thread


@dataclass(frozen=True)
class SpokenChunk:
    """A piece of audio and its sentence; `number` counts the sentences of the reply."""

    number: int
    text: str
    audio: AudioChunk


class SpeechStream:
    """One reply for one listener; made by `TTSWorker.open_stream`.

    The writer calls `write` and `end`, the listener iterates over `sound`, anybody may call `stop`.
    `take_sentence`, `put`, `finish_sentence` and `fail` are for the worker.
    """

    def __init__(
        self,
        speed: float,
        wake_worker: Callable[[], None],
        on_fault: Callable[[VoiceError], None] | None = None,
    ) -> None:
        self.speed = speed
        self.fault: VoiceError | None = None
        self._wake_worker = wake_worker
        self._on_fault = on_fault
        self._changed = threading.Condition()  # its lock is reentrant, and guards everything below
        self._splitter = StreamingSentenceSplitter()
        self._waiting: deque[tuple[int, str]] = deque()
        self._audio: deque[SpokenChunk] = deque()
        self._ahead = 0.0  # seconds in `_audio`
        self._count = 0
        self._busy = self._ended = self._stopped = False

    def write(self, piece: str) -> None:
        """Add text of the reply. Never waits for audio; does nothing once stopped."""
        self._queue_sentences(self._splitter.push(piece))

    def end(self) -> None:
        """No more text comes: what is left is spoken, then the audio ends."""
        self._queue_sentences(self._splitter.flush(), ended=True)

    def stop(self) -> None:
        """Silence: give up the sentence in progress, drop what waits, release the listener."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._audio.clear()
            self._changed.notify_all()
        self._wake_worker()

    @property
    def stopped(self) -> bool:
        """Whether it was silenced."""
        return self._stopped

    @property
    def is_over(self) -> bool:
        """Whether no more audio will be made."""
        with self._changed:
            return self._stopped or (self._ended and not self._waiting and not self._busy)

    def sound(self, timeout: float | None = None) -> Iterator[SpokenChunk]:
        """Yield the audio in order, as it is made, until the reply ends or is stopped.

        Leaving the iterator early, or waiting `timeout` seconds in vain, stops the stream.
        """
        complete = False
        try:
            while (chunk := self._next_chunk(timeout)) is not None:
                yield chunk
            complete = True
        finally:
            if not complete:
                self.stop()

    def _next_chunk(self, timeout: float | None) -> SpokenChunk | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._audio or self.is_over, timeout):
                self._stopped = True
            if self._stopped or not self._audio:
                return None
            chunk = self._audio.popleft()
            self._ahead -= chunk.audio.seconds
        self._wake_worker()  # there may be room for the next sentence
        return chunk

    def _queue_sentences(self, sentences: list[str], *, ended: bool = False) -> None:
        with self._changed:
            for text in sentences:
                if self._stopped or self.fault is not None:
                    break
                if len(self._waiting) < MAX_WAITING_SENTENCES:
                    self._waiting.append((self._count, text))
                else:
                    log.warning("Too many sentences wait to be spoken: one was left out.")
                self._count += 1
            self._ended |= ended
            self._changed.notify_all()
        self._wake_worker()

    def take_sentence(self) -> tuple[int, str] | None:
        """The next sentence to synthesize, with its number; None while there is none, or audio enough."""
        with self._changed:
            if not self._waiting or self._ahead >= MAX_AHEAD_SECONDS:
                return None
            self._busy = True
            return self._waiting.popleft()

    def put(self, chunk: SpokenChunk) -> bool:
        """Hand audio to the listener; False once nobody listens."""
        with self._changed:
            if self._stopped:
                return False
            self._audio.append(chunk)
            self._ahead += chunk.audio.seconds
            self._changed.notify_all()
            return True

    def finish_sentence(self) -> None:
        """The sentence that was taken is spoken, or has failed."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def fail(self, error: VoiceError) -> None:
        """The engine failed: the reply goes on without speech, and `on_fault` hears of it once."""
        with self._changed:
            self.fault = error
            self._waiting.clear()
        log.warning("%s The reply goes on without speech.", error)
        if self._on_fault is not None:
            self._on_fault(error)


class TTSWorker:
    """An engine and the one thread that uses it. The thread starts with the first stream."""

    def __init__(self, engine: TTSEngine, *, speed: float = 1.0) -> None:
        self._engine = engine
        self._speed = speed
        # Reentrant: a stream that is stopped inside `close` wakes this worker.
        self._changed = threading.Condition()
        self._streams: list[SpeechStream] = []  # the one longest without a turn first
        self._cache: OrderedDict[tuple[str, float], list[AudioChunk]] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._warm = not hasattr(engine, "warm")  # an engine that has nothing to load

    def warm(self) -> None:
        """Load the engine now, on its own thread, if it has anything to load; does not wait."""
        with self._changed:
            if not self._warm:
                self._start()

    def open_stream(
        self, speed: float = 1.0, on_fault: Callable[[VoiceError], None] | None = None
    ) -> SpeechStream:
        """Begin a reply; `speed` multiplies the voice's own."""
        stream = SpeechStream(speed * self._speed, self._wake, on_fault)
        with self._changed:
            self._streams.append(stream)
            self._start()
        return stream

    def close(self) -> None:
        """Silence every stream, end the thread and release the engine."""
        with self._changed:
            self._closing = True
            for stream in self._streams:
                stream.stop()
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout=CLOSE_TIMEOUT)
        self._engine.close()

    def _start(self) -> None:
        self._closing = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="voice", daemon=True)
            self._thread.start()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _work(self) -> None:
        if not self._warm:
            self._warm = True
            try:
                self._engine.warm()  # type: ignore[attr-defined]
            except (
                Exception
            ) as error:  # the first sentence fails the same way, and somebody hears of it
                log.info("A voice could not be loaded ahead of time: %s", error)
        while (task := self._next_sentence()) is not None:
            stream, number, text = task
            try:
                self._speak(stream, number, text)
            except VoiceError as error:
                stream.fail(error)
            except Exception as error:  # one engine's bug must not end the thread
                log.exception("A voice failed")
                stream.fail(
                    VoiceError("voice.crashed", kind=type(error).__name__, error=str(error))
                )
            finally:
                stream.finish_sentence()

    def _next_sentence(self) -> tuple[SpeechStream, int, str] | None:
        """Wait for a sentence, of the stream longest without a turn; None when the worker closes."""
        with self._changed:
            while not self._closing:
                self._streams = [stream for stream in self._streams if not stream.is_over]
                for stream in self._streams:
                    if (sentence := stream.take_sentence()) is not None:
                        self._streams.remove(stream)
                        self._streams.append(stream)
                        return stream, *sentence
                self._changed.wait()
        return None

    def _speak(self, stream: SpeechStream, number: int, text: str) -> None:
        key = (text, stream.speed)
        cached = self._cache.get(key)
        if cached is not None:
            self._cache.move_to_end(key)
            for audio in cached:
                stream.put(SpokenChunk(number, text, audio))
            return
        chunks: list[AudioChunk] = []
        source = self._engine.synthesize(text, stream.speed)
        try:
            for audio in source:
                if not stream.put(SpokenChunk(number, text, audio)):
                    return
                chunks.append(audio)
        finally:
            if close := getattr(source, "close", None):
                close()  # an engine that was left early must not go on working
        self._remember(key, chunks)

    def _remember(self, key: tuple[str, float], chunks: list[AudioChunk]) -> None:
        if sum(chunk.seconds for chunk in chunks) > MAX_CACHED_SECONDS:
            return
        self._cache[key] = chunks
        while sum(c.seconds for cached in self._cache.values() for c in cached) > CACHE_SECONDS:
            self._cache.popitem(last=False)


class TTSWorkerPool:
    """A worker for each voice in use, opened at its first use."""

    def __init__(self, open_engine: Callable[[str], tuple[TTSEngine, float]]) -> None:
        """`open_engine` maps a voice's name to its engine and its own speed."""
        self._open_engine = open_engine
        self._workers: dict[str, TTSWorker] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> TTSWorker:
        """The worker of a voice. Raises VoiceError when it cannot be opened."""
        with self._lock:
            if name not in self._workers:
                engine, speed = self._open_engine(name)
                self._workers[name] = TTSWorker(engine, speed=speed)
            return self._workers[name]

    def close(self) -> None:
        """Close every worker."""
        with self._lock:
            workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.close()


def iter_in_turn(streams: list[SpeechStream]) -> Iterator[tuple[int, SpokenChunk]]:
    """A group's audio as (index of the stream, chunk): each reply is heard to its end before the next.

    All of them are synthesized meanwhile, so the next one begins without a wait.
    """
    for index, stream in enumerate(streams):
        for chunk in stream.sound():
            yield index, chunk
