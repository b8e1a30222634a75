"""Many streams at once and clients that leave: the short form of benchmarks/faults.py."""

import os

from benchmarks import faults
from tests.gateway.parrot import MANNER, running


def test_no_stream_gets_another_s_text_and_only_429_is_a_refusal():
    with running([("m", faults.EchoEngine(3, 0.002), MANNER)], max_waiting=4) as client:
        told = soaked(str(client.base_url), 12, lambda told: told.whole > 12 and told.busy > 0)
    assert told.whole > 12 and told.busy > 0
    assert (told.faults, told.mixed) == ([], 0)


def soaked(url, streams, enough):
    """What came of streams until there was `enough`: a busy machine may need several goes."""
    total = faults.StreamCounts()
    for _ in range(20):
        told, _ = faults.soak(url, streams, 1.5)
        total.whole += told.whole
        total.busy += told.busy
        total.faults += told.faults
        total.mixed += told.mixed
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
    class Wrong(faults.EchoEngine):
        def stream(self, request, cancel=None):
            for delta in super().stream(request, cancel):
                yield faults.Delta(delta.text.replace("-1-", "-2-"), delta.finish, delta.usage)

    with running([("m", Wrong(2, 0.0), MANNER)]) as client:
        told = soaked(str(client.base_url), 2, lambda told: told.mixed > 0)
    assert told.mixed > 0
    assert faults.rss([os.getpid()]) > 1_000_000
