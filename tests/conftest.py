"""What many tests share: where the real data lies, and small models made on the spot."""

from __future__ import annotations

import os

# Before torch and the hub's client are imported: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "2")

import atexit
import resource
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

os.environ["ELYSIA_CACHE"] = tempfile.mkdtemp(prefix="elysia-cache-")  # never the user's own
atexit.register(shutil.rmtree, os.environ["ELYSIA_CACHE"], ignore_errors=True)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"

LINES = """你好呀，今天想聊点什么？
我是爱莉希雅，很高兴认识你。
你叫什么名字？我叫爱莉希雅，你可以叫我爱莉。
今天的天气真好，我们一起去花园里走走吧。
不要难过，我会一直在这里陪着你的。
What is your name? My name is Elysia, nice to meet you.
Hello! How are you today? I am fine, thank you.
Could you tell me a story about the sea and the stars?
一加一等于几？一加一等于二。
中国的首都在哪里？中国的首都是北京。
谢谢你的帮助！不客气，这是我应该做的。
明天早上八点叫我起床，好吗？好的，我记住了。
""".splitlines()


# The files that take the longest, by what they measured: first, so that they are not what a run waits for at
# its end, and so that the processes that two of them share are started by one worker.
HEAVY = (
    "test_deepspeed_strategy.py",
    "test_resume.py",
    "test_layer_compile.py",
    "test_browser_talk.py",
    "test_browser_things.py",
    "test_browser_voice.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(HEAVY)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is absent: no {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def few_threads() -> None:
    """At most two threads of torch: tests share a small machine."""
    import torch

    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory, few_threads: None) -> Path:
    """A folder with a byte-level BPE tokenizer of about a thousand pieces."""
    from elysia.models import tiny

    folder = tmp_path_factory.mktemp("tiny")
    text = folder / "text.txt"
    bundled = ROOT / "data" / "chat.json"
    files = [text, bundled] if bundled.is_file() else [text]
    text.write_text("\n".join(LINES * 4), encoding="utf-8")
    return tiny.train_tokenizer(files, 1000, folder / "tokenizer")


def _tiny_model(tokenizer: Path, architecture: str) -> Path:
    from elysia.models import tiny

    return tiny.init_model(
        tokenizer.parent / architecture,
        tokenizer=tokenizer,
        architecture=architecture,
        hidden_size=64,
        layers=2,
        heads=4,
        kv_heads=2,
        intermediate_size=128,
    )


@pytest.fixture(scope="session")
def tiny_internlm2(tiny_tokenizer: Path) -> Path:
    """A folder with a random InternLM2: 2 layers, hidden 64, 4 heads, 2 key-value heads, float32."""
    return _tiny_model(tiny_tokenizer, "internlm2")


@pytest.fixture(scope="session")
def tiny_llama(tiny_tokenizer: Path) -> Path:
    """A folder with a random Llama of the same size."""
    return _tiny_model(tiny_tokenizer, "llama")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of this run's own; `{}` in its URL is a database's name. Skips where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    from elysia.store.database import open_database
    from tests.servers import postgres

    try:
        with postgres() as url:
            with _statements(url) as run:
                run("CREATE DATABASE migrated")
            open_database(url.format("migrated")).close()
            yield url
    except LookupError as error:
        pytest.skip(str(error))


@pytest.fixture
def postgres(postgres_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database without rows, a test's own; without tables, too, if it is asked for "empty"."""
    name = f"t{uuid.uuid4().hex}"
    template = "template1" if getattr(request, "param", "") == "empty" else "migrated"
    with _statements(postgres_server) as run:
        run(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield postgres_server.format(name)
        run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _statements(url: str) -> Iterator[Callable[[str], object]]:
    from sqlalchemy import create_engine

    engine = create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection.exec_driver_sql
    engine.dispose()


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Chroma server on loopback."""
    from tests.servers import chroma

    with chroma(tmp_path_factory.mktemp("chroma")) as url:
        yield url


@pytest.fixture
def small_disk() -> Callable[[int], AbstractContextManager[None]]:
    """`with small_disk(size):` no file may grow beyond `size` bytes, as when a disk is full.

    A real limit of the process: keep the block small, since it holds for the test runner's own
    output too where that goes to a file.
    """

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, handler)

    return limit


@pytest.fixture
def pieces() -> object:
    """An embedder without a model, of real vectors. See tests/pieces.py."""
    from tests.pieces import Pieces

    return Pieces()
