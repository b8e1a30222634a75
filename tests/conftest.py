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


# Files whose tests start several processes each: first, so that they are not what a run waits for at its end.
HEAVY = ("test_zero.py", "test_resume.py", "test_verify.py", "test_gguf.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in HEAVY)


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
