"""Ask an OpenAI-compatible chat endpoint many things at once, within limits: rate, concurrency, retries
and a budget of tokens.

Answers are kept in a folder, one file each, so that nothing is asked, or paid for, twice. The key is
read by the caller and appears in no log, error or file.
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

import httpx

from elysia.core.errors import DataError
from elysia.core.files import write_atomic
from elysia.data.synthesis.scenario_prompts import ScenarioPrompt

log = logging.getLogger(__name__)

LONGEST_WAIT = 60.0  # seconds between two attempts, whatever the server asks for
LARGEST_ANSWER = 4 << 20  # bytes
RETRIED_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class RequestLimits:
    """How an endpoint may be used. `per_minute` (requests) and `budget` (tokens in and out together)
    are unlimited at 0; `timeout` is in seconds."""

    concurrency: int = 4
    per_minute: float = 0.0
    budget: int = 0
    retries: int = 5
    timeout: float = 120.0
    max_tokens: int = 1500


@dataclass
class UsageReport:
    """What one run requested and what came of it."""

    requests: int = 0
    cached: int = 0
    retried: int = 0
    failed: int = 0
    tokens: int = 0
    over_budget: int = 0  # prompts that were not sent, since the budget would have been exceeded
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
        parts = httpx.URL(url)
        if parts.scheme not in ("http", "https") or not parts.host:
            raise DataError("data.endpoint_address", url=url)
        if parts.userinfo:
            raise DataError("data.endpoint_password")
        self.url, self.model, self.key, self.folder = url.rstrip("/"), model, key, folder
        self.limits, self.temperature = limits, temperature
        self.usage = UsageReport()
        self._reserved = 0  # tokens that requests in flight may take
        self._next = 0.0  # when the next request may start, by the loop's clock
        self._refusal: DataError | None = None

    def get_path(self, prompt: ScenarioPrompt) -> Path:
        """Where the answer to a prompt is kept; each model has its own answers."""
        name = "".join(ch if ch.isalnum() or ch in "-._" else "_" for ch in self.model)[:60]
        return self.folder / f"{prompt.id}.{name}.json"

    def load_answer(self, prompt: ScenarioPrompt) -> dict[str, Any] | None:
        """The kept answer: `text`, `tokens`, `model`; None when there is none, or it is damaged."""
        try:
            value = json.loads(self.get_path(prompt).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) and isinstance(value.get("text"), str) else None

    def ask(
        self, prompts: Sequence[ScenarioPrompt], on_answer: Callable[[], None] = lambda: None
    ) -> UsageReport:
        """Request the answers that are not kept yet; `on_answer` is called after each. DataError when
        the endpoint refuses the key, the model or the address."""
        answers = {prompt.id: self.load_answer(prompt) for prompt in prompts}
        cached = [answer for prompt in prompts if (answer := answers[prompt.id])]
        self.usage.cached = len(cached)
        self.usage.tokens = sum(int(answer.get("tokens") or 0) for answer in cached)
        new = [prompt for prompt in prompts if not answers[prompt.id]]
        asyncio.run(self._request_all(new, on_answer))
        if self._refusal:
            raise self._refusal
        return self.usage

    async def _request_all(
        self, prompts: Sequence[ScenarioPrompt], on_answer: Callable[[], None]
    ) -> None:
        waiting = iter(prompts)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        async with httpx.AsyncClient(
            timeout=self.limits.timeout, headers=headers, follow_redirects=False, trust_env=False
        ) as client:

            async def work() -> None:
                for prompt in waiting:
                    if self._refusal:
                        return
                    await self._request(client, prompt)
                    on_answer()

            await asyncio.gather(*(work() for _ in range(self.limits.concurrency)))

    async def _request(self, client: httpx.AsyncClient, prompt: ScenarioPrompt) -> None:
        """Request one answer, with retries, if the budget allows it."""
        cost = prompt.estimate + self.limits.max_tokens
        budget = self.limits.budget
        if budget and self.usage.tokens + self._reserved + cost > budget:
            self.usage.over_budget += 1
            return
        self._reserved += cost
        try:
            for attempt in range(self.limits.retries + 1):
                await self._wait_turn()
                wait = await self._try(client, prompt, attempt)
                if wait is None:
                    return
                if attempt < self.limits.retries:
                    self.usage.retried += 1
                    await asyncio.sleep(wait)
            self.usage.failed += 1
        finally:
            self._reserved -= cost

    async def _wait_turn(self) -> None:
        """Wait until this request may start, so that starts are spread evenly over a minute."""
        if not self.limits.per_minute:
            return
        now = asyncio.get_running_loop().time()
        start = max(now, self._next)
        self._next = start + 60.0 / self.limits.per_minute
        await asyncio.sleep(start - now)

    async def _try(
        self, client: httpx.AsyncClient, prompt: ScenarioPrompt, attempt: int
    ) -> float | None:
        """One attempt. Returns the seconds to wait before the next one; None when none is needed."""
        # Exponential, with jitter, so that workers do not all retry at the same moment.
        backoff = min(0.5 * 2**attempt, LONGEST_WAIT) * (0.5 + random.random() / 2)
        body = {"model": self.model, "messages": list(prompt.messages), "stream": False,
                "temperature": self.temperature, "max_tokens": self.limits.max_tokens}  # fmt: skip
        self.usage.requests += 1
        try:
            async with client.stream("POST", f"{self.url}/chat/completions", json=body) as response:
                raw = b""
                async for chunk in response.aiter_bytes():
                    raw += chunk
                    if len(raw) > LARGEST_ANSWER:
                        return self._log_fault("an answer was larger than 4 MB", backoff)
        except (httpx.TransportError, httpx.TimeoutException) as error:
            return self._log_fault(type(error).__name__, backoff)
        status = response.status_code
        if status in RETRIED_STATUSES:
            return self._log_fault(f"status {status}", _retry_after(response, backoff))
        if status != 200:
            text = raw[:300].decode("utf-8", "replace")
            text = text.replace(self.key, "***") if self.key else text
            self._refusal = DataError(
                "data.endpoint_refused", url=self.url, status=status, answer=text
            )
            return None
        answer = _parse_answer(raw, prompt)
        if answer is None:
            return self._log_fault("an answer that is no chat completion", backoff)
        self.usage.tokens += answer["tokens"]
        write_atomic(self.get_path(prompt), json.dumps(answer, ensure_ascii=False))
        return None

    def _log_fault(self, fault: str, wait: float) -> float:
        if fault not in self.usage.faults:
            self.usage.faults.append(fault)
            log.warning("%s: %s; trying again.", self.url, fault)
        return wait


def _retry_after(response: httpx.Response, backoff: float) -> float:
    """The seconds of the Retry-After header, within bounds."""
    try:
        return min(max(float(response.headers.get("retry-after", backoff)), 0.0), LONGEST_WAIT)
    except ValueError:
        return backoff


def _parse_answer(raw: bytes, prompt: ScenarioPrompt) -> dict[str, Any] | None:
    """Text, tokens and model of a chat completion; None when it is none."""
    try:
        value = json.loads(raw)
        text = value["choices"][0]["message"]["content"]
        usage = value.get("usage") or {}
        total = usage.get("total_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(text, str):
        return None
    tokens = total if isinstance(total, int) and total > 0 else prompt.estimate + len(text)
    return {"text": text, "tokens": tokens, "model": str(value.get("model") or "")}
