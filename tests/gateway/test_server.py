"""Where the gateway listens, and how it starts and stops."""

import socket
import threading
import time

import httpx
import pytest

from elysia.core.errors import DeviceError, UsageError
from elysia.gateway import keys, server
from tests.gateway.parrot import KEY, MANNER, ParrotEngine, running


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_beyond_this_machine_it_listens_only_with_a_key(host):
    with pytest.raises(UsageError, match="no key"):
        server.GatewaySettings(host=host)
    assert KEY not in repr(server.GatewaySettings(host=host, keys=(KEY,)))


def test_a_taken_port_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = server.GatewaySettings(port=listener.getsockname()[1])
        with pytest.raises(DeviceError, match="--port"):
            server.bind_socket(settings)


def test_keys_come_from_a_file_and_the_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\nabcdefghijklmnop  # a page\n\n")
    loaded = keys.load_keys(file, {"ELYSIA_API_KEYS": "qrstuvwxyzqrstuvwx"})
    assert loaded == ("abcdefghijklmnop", "qrstuvwxyzqrstuvwx")
    file.write_text("short\n")
    with pytest.raises(UsageError) as error:
        keys.load_keys(file, {})
    assert "short\n" not in str(error.value) and "16" in str(error.value)
    file.write_text("# none\n")
    with pytest.raises(UsageError, match="holds no key"):
        keys.load_keys(file, {})


def test_stopping_lets_a_running_reply_end_and_closes_the_engine():
    parrot = ParrotEngine()
    answers = []
    with running([("parrot", parrot, MANNER)]) as client:
        ask = {"model": "parrot", "messages": [{"role": "user", "content": "wait"}]}

        def talk():
            url = f"{client.base_url}/v1/chat/completions"
            answers.append(httpx.post(url, json=ask, timeout=120, trust_env=False).json())

        thread = threading.Thread(target=talk)
        thread.start()
        while not parrot.inside:
            time.sleep(0.01)
        threading.Timer(0.5, parrot.gate.set).start()
    thread.join(60)
    assert answers[0]["choices"][0]["message"]["content"] == "wait"
    assert parrot.closed
