"""eSpeak's English is understood by a recogniser with a closed grammar; noise is not."""

import pytest

pocketsphinx = pytest.importorskip("pocketsphinx")
np = pytest.importorskip("numpy")

from elysia.voice.audio import resample_chunk  # noqa: E402
from elysia.voice.engines.espeak import EspeakEngine  # noqa: E402

SENTENCES = """
good morning how are you
please open the window
the weather is very nice today
i would like a cup of tea
where is the train station
she is reading a new book
we are going to the market
turn off the lights in the kitchen
my brother lives in another city
the children are playing outside
can you help me with this
i will call you tomorrow evening
the answer is seven hundred twelve
he forgot his umbrella again
let us sing a song together
thank you for your patience
there is a cat under the table
dinner will be ready at eight
the river runs behind our house
close your eyes and count to ten
""".strip().splitlines()
RATE = 16_000


@pytest.fixture(scope="module")
def hear(tmp_path_factory):
    """Samples at 16 kHz -> what the grammar's recogniser understood, or None."""
    grammar = tmp_path_factory.mktemp("grammar") / "lines.gram"
    grammar.write_text(
        "#JSGF V1.0;\ngrammar lines;\npublic <line> = " + " | ".join(SENTENCES) + ";\n"
    )
    decoder = pocketsphinx.Decoder(jsgf=str(grammar), lm=None, loglevel="FATAL")

    def listen(samples):
        # Half a second of a room's faint hiss: to digital silence the recogniser does not adapt.
        quiet = (np.random.default_rng(0).standard_normal(RATE // 2) * 3).astype("<i2")
        decoder.start_utt()
        decoder.process_raw(np.concatenate([quiet, samples, quiet]).tobytes(), full_utt=True)
        decoder.end_utt()
        return decoder.hyp().hypstr if decoder.hyp() else None

    return listen


def test_at_least_eighteen_of_twenty_sentences_are_understood(hear):
    voice = EspeakEngine(variant="", pitch=50)
    understood = 0
    for sentence in SENTENCES:
        sound = b"".join(resample_chunk(p, RATE).data for p in joined(voice.synthesize(sentence)))
        understood += hear(np.frombuffer(sound, "<i2")) == sentence
    voice.close()
    assert understood >= 18


def joined(pieces):
    """One piece of many, so that resampling has no seams."""
    from elysia.voice.base import AudioChunk

    heard = list(pieces)
    return [AudioChunk(b"".join(p.data for p in heard), heard[0].rate)]


def test_noise_is_understood_as_nothing(hear):
    random = np.random.default_rng(0)
    for loud in (300, 3000):
        noise = (random.standard_normal(3 * RATE) * loud).astype("<i2")
        assert hear(noise) not in SENTENCES
