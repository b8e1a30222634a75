"""An OpenAI-compatible chat endpoint, asked many things at once within limits: rate, concurrency,
retries and a budget of tokens. Answers are kept in a folder, a file each, so that nothing is asked,
or paid, twice.

The key is read by the caller and appears in no log, error or file. Knows nothing of dialogues.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from elysia.core.errors import DataError
from elysia.core.files import write_atomic
from elysia.data.synthesis.scenario_prompts import ScenarioPrompt

log = logging.getLogger(__name__)

LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
LARGEST_ANSWER = 4 << 20  # bytes
RETRIED_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504}  # worth another try


@dataclass(frozen=True)
class RequestLimits:
    """How an endpoint may be used. per_minute and budget (tokens in and out together) 0: no limit."""

    concurrency: int = 4
    per_minute: float = 0.0
    budget: int = 0
    retries: int = 5
    timeout: float = 120.0
    max_tokens: int = 1500


@dataclass
class UsageReport:
    """What one run asked for and what came of it."""

    asked: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    tokens: int = 0
    left: int = 0  # not asked, since the budget would not have held it
    faults: list[str] = field(default_factory=list)


class CompletionClient:
    """One model at one address. `folder` keeps the answers."""

    def __init__(
        self,
        url: str,
        model: str,
        key: str,
        folder: Path,
        limits: RequestLimits,
        temperature: float = 1.0,
    ) -> None:
        parts = httpx2.URL(url)
        if parts.scheme not in ("http", "https") or not parts.host:
            raise DataError(
                f"'{url}' is no address of an endpoint, such as http://127.0.0.1:8000/v1."
            )
        if parts.userinfo:
            raise DataError(
                "The address of the endpoint holds a password: give the key by --key-env."
            )
        self.url, self.model, self.key, self.folder = url.rstrip("/"), model, key, folder
        self.limits, self.temperature = limits, temperature
        self.spent = UsageReport()
        self._reserved = 0
        self._next = 0.0
        self._stop = ""

    def file_of(self, prompt: ScenarioPrompt) -> Path:
        """Where the answer to a prompt is kept; a model's answers are its own."""
        name = "".join(ch if ch.isalnum() or ch in "-._" else "_" for ch in self.model)[:60]
        return self.folder / f"{prompt.id}.{name}.json"

    def answer_of(self, prompt: ScenarioPrompt) -> dict[str, Any] | None:
        """The kept answer: `text`, `tokens`, `model`; None when there is none, or a damaged one."""
        try:
            value = json.loads(self.file_of(prompt).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) and isinstance(value.get("text"), str) else None

    def ask(
        self, prompts: Sequence[ScenarioPrompt], done: Callable[[], None] = lambda: None
    ) -> UsageReport:
        """Ask what is not kept yet. DataError when the endpoint refuses us (key, model, address)."""
        kept = [prompt for prompt in prompts if self.answer_of(prompt)]
        self.spent.cached = len(kept)
        self.spent.tokens = sum(int((self.answer_of(p) or {}).get("tokens") or 0) for p in kept)
        known = {prompt.id for prompt in kept}
        asyncio.run(self._all([prompt for prompt in prompts if prompt.id not in known], done))
        if self._stop:
            raise DataError(self._stop)
        return self.spent

    async def _all(self, prompts: Sequence[ScenarioPrompt], done: Callable[[], None]) -> None:
        waiting = iter(prompts)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        async with httpx2.AsyncClient(
            timeout=self.limits.timeout, headers=headers, follow_redirects=False, trust_env=False
        ) as client:

            async def worker() -> None:
                for prompt in waiting:
                    if self._stop:
                        return
                    await self._one(client, prompt)
                    done()

            await asyncio.gather(*(worker() for _ in range(self.limits.concurrency)))

    async def _one(self, client: httpx2.AsyncClient, prompt: ScenarioPrompt) -> None:
        cost = prompt.estimate + self.limits.max_tokens
        budget = self.limits.budget
        if budget and self.spent.tokens + self._reserved + cost > budget:
            self.spent.left += 1
            return
        self._reserved += cost
        try:
            for attempt in range(self.limits.retries + 1):
                await self._pace()
                wait = await self._try(client, prompt, attempt)
                if wait is None:
                    return
                if attempt < self.limits.retries:
                    self.spent.retried += 1
                    await asyncio.sleep(wait)
            self.spent.failed += 1
        finally:
            self._reserved -= cost

    async def _pace(self) -> None:
        """Wait for this request's turn, so that starts are evenly spread over a minute."""
        if not self.limits.per_minute:
            return
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        self._next = start + 60.0 / self.limits.per_minute
        await asyncio.sleep(start - now)

    async def _try(
        self, client: httpx2.AsyncClient, prompt: ScenarioPrompt, attempt: int
    ) -> float | None:
        """One request. Seconds to wait before the next try; None when there is to be none."""
        backoff = min(0.5 * 2**attempt, LONGEST_WAIT) * (0.5 + random.random() / 2)
        body = {"model": self.model, "messages": list(prompt.messages), "stream": False,
                "temperature": self.temperature, "max_tokens": self.limits.max_tokens}  # fmt: skip
        self.spent.asked += 1
        try:
            async with client.stream("POST", f"{self.url}/chat/completions", json=body) as response:
                raw = b""
                async for chunk in response.aiter_bytes():
                    raw += chunk
                    if len(raw) > LARGEST_ANSWER:
                        return self._note("an answer was larger than 4 MB", backoff)
        except (httpx2.TransportError, httpx2.TimeoutException) as error:
            return self._note(f"{type(error).__name__}", backoff)
        if response.status_code in RETRIED_STATUSES:
            return self._note(f"status {response.status_code}", _retry_after(response, backoff))
        if response.status_code != 200:
            said = raw[:300].decode("utf-8", "replace")
            said = said.replace(self.key, "***") if self.key else said
            self._stop = f"{self.url} refused with status {response.status_code}: {said}"
            return None
        answer = _parse_answer(raw, prompt)
        if answer is None:
            return self._note("an answer that is no chat completion", backoff)
        self.spent.tokens += answer["tokens"]
        write_atomic(self.file_of(prompt), json.dumps(answer, ensure_ascii=False))
        return None

    def _note(self, fault: str, wait: float) -> float:
        if fault not in self.spent.faults:
            self.spent.faults.append(fault)
            log.warning("%s: %s; trying again.", self.url, fault)
        return wait


def _retry_after(response: httpx2.Response, backoff: float) -> float:
    """What Retry-After says, in seconds, within bounds."""
    try:
        return min(max(float(response.headers.get("retry-after", backoff)), 0.0), LONGEST_WAIT)
    except ValueError:
        return backoff


def _parse_answer(raw: bytes, prompt: ScenarioPrompt) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
        text = value["choices"][0]["message"]["content"]
        usage = value.get("usage") or {}
        counted = usage.get("total_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(text, str):
        return None
    tokens = counted if isinstance(counted, int) and counted > 0 else prompt.estimate + len(text)
    return {"text": text, "tokens": tokens, "model": str(value.get("model") or "")}
