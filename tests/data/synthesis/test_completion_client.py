"""Dialogues from an endpoint, against a small real server on loopback: kills, budgets, retries,
keys, filters.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from elysia import cli
from elysia.core.errors import DataError
from elysia.core.persona import Persona
from elysia.data.formats.conversion import load_conversations
from elysia.data.synthesis.answer_filter import build_rows, find_fault
from elysia.data.synthesis.completion_client import CompletionClient, RequestLimits
from elysia.data.synthesis.scenario_prompts import build_prompts, load_grid, parse_turns

KEY = "sk-very-secret-4711"
GRID = {"topic": [f"topic {n}" for n in range(30)], "turns": [1]}


class FakeServer(ThreadingHTTPServer):
    """Answers with a dialogue about the topic asked for; `plan` says what to do with a request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.plan = lambda number: 200
        self.asked, self.keys, self.lock, self.slow = [], [], threading.Lock(), 0.0
        self.at_once = self.most = 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class FakeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        topic = body["messages"][1]["content"].split("topic: ")[1].splitlines()[0]
        with self.server.lock:
            self.server.asked.append(topic)
            self.server.keys.append(self.headers.get("Authorization"))
            number = len(self.server.asked)
            self.server.at_once += 1
            self.server.most = max(self.server.most, self.server.at_once)
        time.sleep(self.server.slow)
        status = self.server.plan(number)
        n = int(topic.split()[1])
        reply = f"嘻嘻，{'花草树木山水云风'[n % 8] * 3}里的第{n}个故事，我慢慢讲给你听哦。"
        text = json.dumps(
            {"turns": [{"user": f"说说{topic}吧", "reply": reply}]}, ensure_ascii=False
        )
        answer = {
            "model": "small",
            "choices": [{"message": {"content": text}}],
            "usage": {"total_tokens": 100},
        }
        raw = json.dumps(answer if status == 200 else {"error": f"bad key {KEY}"}).encode()
        with self.server.lock:
            self.server.at_once -= 1
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = FakeServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def words(tmp_path, server):
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"name": "小满", "description": "小满是一个花匠。"}))
    grid = tmp_path / "grid.json"
    grid.write_text(json.dumps(GRID))
    return ["data", "generate", str(card), "--base-url", server.url, "--model", "small", "--situations",
            str(grid), "--count", "12", "--max-tokens", "200", "--output", str(tmp_path / "out.jsonl")]  # fmt: skip


def rows(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]


def test_rows_carry_where_they_come_from_and_can_be_trained_on(words, server, tmp_path):
    server.slow = 0.2  # long enough for requests to meet
    assert cli.main([*words, "--concurrency", "3"]) == 0
    assert len(load_conversations(tmp_path / "out.jsonl", "xtuner")) == 12
    assert 1 < server.most <= 3
    source = rows(tmp_path)[0]["source"]
    assert (
        source["model"] == "small"
        and source["endpoint"] == "127.0.0.1"
        and source["card"] == "小满"
    )
    assert source["situation"]["topic"] in GRID["topic"]
    assert cli.main(words) == 0  # everything is kept: nothing is asked again
    assert len(server.asked) == 12


def test_a_killed_run_goes_on_with_no_row_lost_or_doubled(words, server, tmp_path):
    server.slow = 0.05
    root = Path(__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-m", "elysia", *words, "--concurrency", "2"],
        env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(server.asked) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = len(server.asked)
    assert 5 <= before < 12
    server.slow = 0.0
    assert cli.main(words) == 0
    topics = [row["source"]["situation"]["topic"] for row in rows(tmp_path)]
    assert len(topics) == len(set(topics)) == 12
    assert max(Counter(server.asked).values()) <= 2  # at most those in flight at the kill
    assert len(server.asked) <= 12 + 2


def test_the_budget_is_never_passed(words, server, tmp_path, capsys):
    assert cli.main([*words, "--budget", "1000"]) == 1
    asked = len(server.asked)
    assert 0 < asked * 100 <= 1000
    assert "exceeded the budget" in capsys.readouterr().err
    assert cli.main([*words, "--budget", "1000"]) == 1  # of all runs together
    assert len(server.asked) * 100 <= 1000
    assert cli.main(words) == 0
    assert len(rows(tmp_path)) == 12


def test_faults_that_pass_are_tried_again(words, server, tmp_path):
    server.plan = lambda number: (429, 503, 200)[number % 3]
    assert cli.main([*words, "--concurrency", "1"]) == 0
    assert len(rows(tmp_path)) == 12


def test_a_fault_that_stays_leaves_the_others(words, server, tmp_path, capsys):
    server.plan = lambda number: 500 if number <= 2 else 200
    assert cli.main([*words, "--concurrency", "1", "--retries", "1"]) == 1
    assert "1 failed (status 500)" in capsys.readouterr().err
    assert len(rows(tmp_path)) == 11


def test_the_key_is_sent_and_told_to_nobody(words, server, tmp_path, capsys, caplog, monkeypatch):
    caplog.set_level(0)
    monkeypatch.setenv("THE_KEY", KEY)
    assert cli.main([*words, "--key-env", "THE_KEY", "--count", "2"]) == 0
    server.plan = lambda number: 401
    assert cli.main([*words, "--key-env", "THE_KEY"]) == 1
    output = capsys.readouterr()
    assert "refused with status 401" in output.err
    assert set(server.keys) == {f"Bearer {KEY}"}
    everything = output.out + output.err + caplog.text
    everything += "".join(p.read_text("utf-8") for p in tmp_path.rglob("*") if p.is_file())
    assert KEY not in everything


def test_starts_are_spread_over_a_minute(tmp_path, server):
    prompts = build_prompts(Persona("小满"), 4, GRID, 0)
    began = time.monotonic()
    CompletionClient(
        server.url, "small", "", tmp_path, RequestLimits(concurrency=4, per_minute=600)
    ).ask(prompts)
    assert time.monotonic() - began >= 0.3  # three gaps of a tenth


def test_a_dry_run_asks_nothing_and_shows_the_cost(words, server, capsys):
    assert cli.main([*words, "--dry-run", "--price", "1", "2"]) == 0
    shown = capsys.readouterr().out
    assert "[system]" in shown and "12 prompts" in shown and "at the prices given" in shown
    assert server.asked == []


def test_bad_answers_are_left_out_for_a_reason():
    (prompt,) = build_prompts(Persona("小满"), 1, {"topic": ["a"], "turns": [1]}, 0)
    for pair, reason in (
        (("早", "我是ChatGPT，早。"), "other-assistant"),
        (("早", "早上好，{{name}}。"), "placeholder"),
        (("早", "昨天傍晚下了一场很大的雨。后来我们一起走回花房，然后就"), "cut-off"),
        (("早", "好" * 3000), "a reply of more than 2000 characters"),
        (("早", "早上好。"), ""),
    ):
        assert find_fault([pair], prompt, frozenset()) == reason
    assert (
        find_fault([("a", "b"), ("c", "d")], prompt, frozenset())
        == "not as many turns as asked for"
    )
    for text in (
        "no",
        "{",
        '{"turns": []}',
        '{"turns": [{"user": "a"}]}',
        '{"turns": [{"user": "a", "reply": " "}]}',
    ):
        with pytest.raises(DataError):
            list(parse_turns(text))


def test_rows_that_say_the_same_are_taken_once():
    prompts = build_prompts(Persona("小满"), 3, GRID, 0)
    long = "今天早上我先去花房浇水，又把新到的球根种进盆里，最后坐在门口喝了一杯很甜的桃子茶{}。"
    texts = [long.format(end) for end in ("", "", "啦")]
    answers = {
        prompt.id: {
            "text": json.dumps({"turns": [{"user": "今天做了些什么呢？", "reply": text}]}),
            "model": "m",
            "tokens": 1,
        }
        for prompt, text in zip(prompts, texts, strict=True)
    }
    rows, reasons = build_rows(prompts, lambda p: answers[p.id], card="小满", host="h")
    assert len(rows) == 1
    assert reasons == {"the same as another row": 1, "nearly the same as another row": 1}


def test_mistakes_are_sentences(words, tmp_path, capsys):
    assert cli.main([*words, "--count", "0"]) == 2
    assert cli.main([*words, "--count", "31"]) == 1
    assert cli.main([*words, "--base-url", "ftp://x"]) == 1
    assert cli.main([*words, "--base-url", "http://me:secret@127.0.0.1/v1"]) == 1
    output = capsys.readouterr().err
    assert "30 situations" in output and "not the address" in output and "secret" not in output
    (tmp_path / "bad.json").write_text('{"topic": "tea"}')
    with pytest.raises(DataError, match="object of lists"):
        load_grid(tmp_path / "bad.json")
