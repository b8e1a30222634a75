"""One gateway for a file's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="requirements/serve.lock is not installed")

import httpx

from tests.gateway.parrot import MANNER, ParrotEngine, running


@pytest.fixture(scope="module")
def parrot() -> ParrotEngine:
    return ParrotEngine()


@pytest.fixture(scope="module")
def client(parrot: ParrotEngine) -> Iterator[httpx.Client]:
    """A gateway without keys, over the parrot."""
    with running([("parrot", parrot, MANNER)], max_waiting=3) as client:
        yield client
