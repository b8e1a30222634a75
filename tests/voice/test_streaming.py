"""Speech while a reply is written: early, in order, bounded, silenced at once, never mixed."""

import threading
import time

import pytest

from elysia.core.errors import VoiceError
from elysia.voice import streaming as module
from elysia.voice.base import AudioChunk
from elysia.voice.streaming import TTSWorker, TTSWorkerPool, iter_in_turn

RATE = 8000
PATIENCE = 60  # seconds; a busy machine is no fault


class TapeEngine:
    """A voice that says each letter as 10 ms, notes what it was asked for, and can be held back."""

    def __init__(self, mark=1, gate=None, fail=None):
        self.asked, self.left, self.closed = [], 0, False
        self.mark, self.gate, self.fail = mark, gate, fail
        self.speaking = 0
        self.overlapped = False

    def synthesize(self, text, speed=1.0):
        self.asked.append(text)
        if self.fail:
            raise self.fail
        self.speaking += 1
        self.overlapped |= self.speaking > 1
        try:
            for _ in text:
                if self.gate:
                    self.gate.wait(PATIENCE)
                yield AudioChunk(bytes([self.mark, 0]) * int(RATE / 100 / speed), RATE)
        except GeneratorExit:
            self.left += 1
            raise
        finally:
            self.speaking -= 1

    def close(self):
        self.closed = True


@pytest.fixture
def start_worker():
    """(engine) -> a worker that is closed at the end."""
    workers = []

    def make(voice, **settings):
        workers.append(TTSWorker(voice, **settings))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()
    assert not [t for t in threading.enumerate() if t.name == "voice"], "a worker was left"


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def test_she_speaks_the_first_sentence_while_the_second_is_not_written(start_worker):
    stream = start_worker(TapeEngine()).open_stream()
    stream.write("你好，我在。我")
    first = next(stream.sound(timeout=PATIENCE))
    assert first.text == "你好，我在。" and first.number == 0


def test_sentences_come_in_order_and_whole(start_worker):
    tape = TapeEngine()
    stream = start_worker(tape).open_stream()
    for piece in ("一。二", "。三！", "四"):
        stream.write(piece)
    stream.end()
    spoken = list(stream.sound(timeout=PATIENCE))
    assert [s.number for s in spoken] == sorted(s.number for s in spoken)
    assert list(dict.fromkeys(s.text for s in spoken)) == ["一。", "二。", "三！", "四"]
    assert not tape.overlapped


def test_an_empty_reply_ends_at_once(start_worker):
    stream = start_worker(TapeEngine()).open_stream()
    stream.write("😊……")
    stream.end()
    assert list(stream.sound(timeout=PATIENCE)) == []


def test_stop_silences_in_the_middle_of_a_sentence(start_worker):
    gate = threading.Event()
    tape = TapeEngine(gate=gate)
    stream = start_worker(tape).open_stream()
    stream.write("这是很长的一句话。还有一句。")
    stream.end()
    until(lambda: tape.asked)
    heard = []
    listener = threading.Thread(target=lambda: heard.extend(stream.sound()))
    listener.start()
    stream.stop()
    gate.set()
    listener.join(PATIENCE)
    assert not listener.is_alive()
    until(lambda: tape.left)
    assert tape.asked == ["这是很长的一句话。"], "the next sentence was still made"
    assert not heard


def test_a_new_message_is_spoken_after_the_old_one_was_silenced(start_worker):
    worker = start_worker(TapeEngine())
    old = worker.open_stream()
    old.write("旧的话。" * 20)
    old.stop()
    new = worker.open_stream()
    new.write("新的话。")
    new.end()
    assert {s.text for s in new.sound(timeout=PATIENCE)} == {"新的话。"}
    old.write("还有。")
    assert list(old.sound(timeout=1)) == []


def test_two_listeners_never_hear_each_other(start_worker):
    worker = start_worker(TapeEngine())
    streams = [worker.open_stream() for _ in range(2)]
    for number in range(5):
        for name, stream in zip("甲乙", streams, strict=True):
            stream.write(f"{name}说第{number}句。")
    for name, stream in zip("甲乙", streams, strict=True):
        stream.end()
        texts = list(dict.fromkeys(s.text for s in stream.sound(timeout=PATIENCE)))
        assert texts == [f"{name}说第{n}句。" for n in range(5)]


def test_a_group_speaks_in_order_each_in_its_own_voice():
    tapes = {"a": TapeEngine(1), "b": TapeEngine(2)}
    pool = TTSWorkerPool(lambda name: (tapes[name], 1.0))
    streams = [pool.get(name).open_stream() for name in ("a", "b", "a")]
    for number, stream in enumerate(streams):
        stream.write(f"第{number}个人说。再说一句。")
        stream.end()
    heard = [(who, spoken.audio.data[0]) for who, spoken in iter_in_turn(streams)]
    assert list(dict.fromkeys(heard)) == [(0, 1), (1, 2), (2, 1)]
    assert [who for who, _ in heard] == sorted(who for who, _ in heard)
    pool.close()
    assert all(tape.closed for tape in tapes.values())


def test_a_dead_voice_is_said_once_and_writing_goes_on(start_worker):
    faults = []
    stream = start_worker(TapeEngine(fail=VoiceError("gone."))).open_stream(on_fault=faults.append)
    for _ in range(5):
        stream.write("一句。")
    stream.end()
    assert list(stream.sound(timeout=PATIENCE)) == []
    assert [str(error) for error in faults] == ["gone."]


def test_a_voice_with_a_mistake_of_its_own_does_not_end_the_worker(start_worker):
    tape = TapeEngine(fail=ZeroDivisionError())
    worker = start_worker(tape)
    broken = worker.open_stream()
    broken.write("一句。")
    broken.end()
    assert list(broken.sound(timeout=PATIENCE)) == [] and "ZeroDivisionError" in str(broken.fault)
    tape.fail = None
    again = worker.open_stream()
    again.write("好了。")
    again.end()
    assert list(again.sound(timeout=PATIENCE))


def test_a_full_queue_drops_sentences_and_never_blocks_the_writer(start_worker, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING_SENTENCES", 4)
    gate = threading.Event()
    stream = start_worker(TapeEngine(gate=gate)).open_stream()
    for number in range(50):
        stream.write(f"第{number}句话。")
    stream.end()
    gate.set()
    texts = list(dict.fromkeys(s.text for s in stream.sound(timeout=PATIENCE)))
    assert texts and len(texts) <= 6
    numbers = [int(text[1:-3]) for text in texts]
    assert numbers == sorted(numbers)


def test_a_listener_who_leaves_stops_the_work(start_worker):
    tape = TapeEngine()
    stream = start_worker(tape).open_stream()
    stream.write("很长的话" * 30 + "。好")
    sound = stream.sound(timeout=PATIENCE)
    next(sound)
    sound.close()
    assert stream.stopped
    until(lambda: tape.speaking == 0)


def test_a_slow_listener_costs_a_bound_of_memory_and_nobody_elses_voice(start_worker, monkeypatch):
    monkeypatch.setattr(module, "MAX_AHEAD_SECONDS", 0.2)
    tape = TapeEngine()
    worker = start_worker(tape)
    slow, quick = worker.open_stream(), worker.open_stream()
    slow.write("一二三四五六七八九十。" * 20)
    quick.write("你好。再见。")
    quick.end()
    assert len({s.text for s in quick.sound(timeout=PATIENCE)}) == 2
    assert slow._ahead <= 0.2 + 0.12, "at most worker sentence beyond"
    slow.end()
    assert len({s.number for s in slow.sound(timeout=PATIENCE)}) == 20, "it goes on as it is heard"


def test_a_sentence_that_comes_again_is_not_made_again(start_worker):
    tape = TapeEngine()
    worker = start_worker(tape)
    audio = []
    for speed in (1.0, 1.0, 2.0):
        stream = worker.open_stream(speed)
        stream.write("晚安。")
        stream.end()
        audio.append(b"".join(s.audio.data for s in stream.sound(timeout=PATIENCE)))
    assert audio[0] == audio[1] and len(audio[2]) < len(audio[0])
    assert tape.asked == ["晚安。", "晚安。"], "once a speed"


def test_the_cache_keeps_to_its_size(start_worker, monkeypatch):
    monkeypatch.setattr(module, "CACHE_SECONDS", 0.2)
    worker = start_worker(TapeEngine())
    stream = worker.open_stream()
    for number in range(20):
        stream.write(f"这是{number}句。")
    stream.end()
    list(stream.sound(timeout=PATIENCE))
    assert sum(p.seconds for sound in worker._cache.values() for p in sound) <= 0.2


class ColdTapeEngine(TapeEngine):
    """A tape that must be loaded."""

    def __init__(self, fault=None):
        super().__init__()
        self.fault = fault

    def warm(self):
        self.asked.append("warm")
        if self.fault:
            raise self.fault


@pytest.mark.parametrize("fault", [None, VoiceError("no model.")])
def test_a_voice_is_loaded_once_before_anybody_speaks(start_worker, fault):
    cold = ColdTapeEngine(fault)
    worker = start_worker(cold)
    worker.warm()
    until(lambda: cold.asked == ["warm"])
    worker.warm()
    for _ in range(2):
        stream = worker.open_stream()
        stream.write("好。")
        stream.end()
        assert {s.text for s in stream.sound(timeout=PATIENCE)} == {"好。"}
    assert cold.asked == ["warm", "好。"]
