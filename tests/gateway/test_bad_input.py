"""What a client does wrong gets a 4xx in OpenAI's form, and harms nobody else."""

import json
import socket
import threading
import time

import pytest

from tests.gateway.parrot import KEY, MANNER, ParrotEngine, running

GOOD = {"model": "parrot", "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"


def refused(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "messages"),
        ({"n": 0}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"repetition_penalty": 5e-324}, "repetition_penalty"),  # 0 in llama.cpp's float32
        ({"stop": [""]}, "stop"),
        ({"stream_options": {"include_usage": True}}, None),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"messages": [{"role": "user", "content": "x" * 600}]}, "messages"),
        ({"model": None}, "model"),
    ],
)
def test_a_wrong_field_is_named(client, changes, param):
    error = refused(client.post(CHAT, json=GOOD | changes), 400)
    assert param is None or (error["param"] or "").startswith(param)


def test_an_unknown_model_is_404_and_an_overlong_prompt_says_so(client):
    assert refused(client.post(CHAT, json=GOOD | {"model": "x"}), 404)["code"] == "model_not_found"
    long = GOOD | {"messages": [{"role": "user", "content": "x" * 600}]}
    assert refused(client.post(CHAT, json=long), 400)["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"hi"',
        b"\xff\xfe{}",
        b'{"model": "parrot", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "parrot", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "parrot", "temperature": NaN, "messages": [{"role": "user", "content": "a"}]}',
        b"[" * 100_000,
        b'{"n": ' + b"9" * 6000 + b"}",
    ],
)
def test_a_body_that_is_no_json_object_is_400(client, body):
    headers = {"Content-Type": "application/json"}
    refused(client.post(CHAT, content=body, headers=headers), 400)


def test_unknown_paths_and_methods_have_the_same_form(client):
    refused(client.get("/v2/nothing"), 404)
    refused(client.get(CHAT), 405)


def test_a_body_beyond_the_limit_is_413_told_or_not(client):
    big = json.dumps(GOOD | {"user": "x" * 10_000_000}).encode()
    headers = {"Content-Type": "application/json"}
    refused(client.post(CHAT, content=big, headers=headers), 413)

    def pieces():
        for _ in range(300):
            yield b" " * 10_000

    refused(client.post(CHAT, content=pieces(), headers=headers), 413)


def test_another_name_for_this_machine_is_refused_without_keys(client):
    refused(client.post(CHAT, json=GOOD, headers={"Host": "evil.example"}), 403)


def test_a_client_that_sends_slowly_is_let_go(parrot):
    with running([("parrot", parrot, MANNER)], body_timeout=0.3) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
            slow.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
            slow.settimeout(5)
            assert b" 408 " in slow.recv(200)
        assert client.post(CHAT, json=GOOD).status_code == 200


def test_keys_are_asked_for_and_wrong_ones_refused(parrot, caplog):
    with running([("parrot", parrot, MANNER)], keys=("another-key-of-somebody", KEY)) as client:
        assert refused(client.post(CHAT, json=GOOD), 401)["code"] == "invalid_api_key"
        for header in ("Bearer no", f"Basic {KEY}", KEY, "Bearer \u00ff".encode("latin-1")):
            refused(client.post(CHAT, json=GOOD, headers={"Authorization": header}), 401)
        refused(client.get("/v1/models"), 401)
        refused(client.get("/metrics"), 401)
        good = {"Authorization": f"Bearer {KEY}"}
        assert client.post(CHAT, json=GOOD, headers=good).status_code == 200
        assert client.get("/health").status_code == 200
    assert KEY not in caplog.text


def test_a_key_above_its_limits_is_told_when_to_come_again(parrot):
    with running([("parrot", parrot, MANNER)], keys=(KEY,), requests_per_minute=3) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        answers = [client.post(CHAT, json=GOOD) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1


def test_a_full_queue_is_429_and_those_inside_are_served():
    parrot = ParrotEngine(slots=1)
    with running([("parrot", parrot, MANNER)], max_waiting=1) as client:
        wait = GOOD | {"messages": [{"role": "user", "content": "wait"}]}
        statuses = []

        def ask():
            statuses.append(client.post(CHAT, json=wait))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 60
        while len(statuses) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        parrot.gate.set()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in statuses) == [200, 200, 429, 429]
        assert all("Retry-After" in a.headers for a in statuses if a.status_code == 429)
        assert parrot.most == 1


def test_clients_that_leave_leak_no_slot(client, parrot):
    forever = GOOD | {"messages": [{"role": "user", "content": "forever"}]}
    forever |= {"max_tokens": 10**6}
    for number in range(100):
        ask = forever | {"stream": number % 2 == 0}
        body = json.dumps(ask).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(head.encode() + body[: -(number % 3) or None])
            time.sleep(0.002 * (number % 7))
    slots = client.app.state.models.models["parrot"].queue
    until = time.monotonic() + 60
    while (slots.running or parrot.inside or slots.waiting) and time.monotonic() < until:
        time.sleep(0.01)
    assert (slots.running, slots.waiting, parrot.inside) == (0, 0, 0)
    assert client.post(CHAT, json=GOOD).status_code == 200


def test_an_engine_that_fails_ends_its_stream_with_an_error(client):
    fail = GOOD | {"messages": [{"role": "user", "content": "fail"}]}
    assert refused(client.post(CHAT, json=fail), 503)["message"] == "The engine broke."
    text = client.post(CHAT, json=fail | {"stream": True}).text
    last = [line for line in text.splitlines() if line][-1]
    assert json.loads(last[6:])["error"]["message"] == "The engine broke."


def test_no_stream_gets_anothers_text(client):
    results = {}

    def ask(number):
        text = f"{number}-" * 20
        message = GOOD | {"messages": [{"role": "user", "content": text}], "stream": True}
        while (answer := client.post(CHAT, json=message)).status_code == 429:
            time.sleep(0.02)
        parts = [
            json.loads(line[6:])["choices"][0]["delta"].get("content", "")
            for line in answer.text.splitlines()
            if line.startswith("data: {")
        ]
        results[number] = "".join(parts) == text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(16), True)
