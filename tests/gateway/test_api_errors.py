"""Many streams at once and clients that leave: the short form of benchmarks/faults.py."""

import os

from benchmarks import faults
from tests.gateway.parrot import MANNER, running


def test_no_stream_gets_another_s_text_and_only_429_is_a_refusal():
    with running([("m", faults.EchoEngine(3, 0.002), MANNER)], max_waiting=4) as client:
        counts = soaked(
            str(client.base_url), 12, lambda counts: counts.whole > 12 and counts.busy > 0
        )
    assert counts.whole > 12 and counts.busy > 0
    assert (counts.faults, counts.mixed) == ([], 0)


def soaked(url, streams, enough):
    """What came of streams until there was `enough`: a busy machine may need several goes."""
    total = faults.StreamCounts()
    for _ in range(20):
        counts, _ = faults.soak(url, streams, 1.5)
        total.whole += counts.whole
        total.busy += counts.busy
        total.faults += counts.faults
        total.mixed += counts.mixed
        if enough(total):
            break
    return total


def test_clients_that_leave_at_any_moment_free_their_slots():
    engine = faults.EchoEngine(2, 0.02)
    with running([("m", engine, MANNER)], max_waiting=2) as client:
        url = str(client.base_url).rstrip("/")
        faults.leave(url, 24)
        assert faults.reply(client, "after all") == "after all"


def test_a_mixed_or_broken_reply_would_be_seen():
    class MixingEngine(faults.EchoEngine):
        def stream(self, request, cancel=None):
            for delta in super().stream(request, cancel):
                yield faults.Delta(delta.text.replace("-1-", "-2-"), delta.finish, delta.usage)

    with running([("m", MixingEngine(2, 0.0), MANNER)]) as client:
        counts = soaked(str(client.base_url), 2, lambda counts: counts.mixed > 0)
    assert counts.mixed > 0
    assert faults.rss([os.getpid()]) > 1_000_000
