"""Conversations go out as JSONL and come back the same; a line that is wrong is named."""

from __future__ import annotations

import json

import pytest

from elysia.chat.transcript import export_conversation, import_conversation, parse_transcript
from elysia.core.errors import DataError
from tests.chat.conftest import whole


def test_what_goes_out_comes_back_the_same(service, user):
    id = service.create(user, ["elysia", "xiaotang"], {"round": 1, "examples": False}).id
    whole(service, user, id, service.send(user, id, "小棠，在吗？"))
    again = import_conversation(
        service, user, ["elysia", "xiaotang"], export_conversation(service, user, id)
    )
    assert again != id
    old, new = service.get_messages(user, id), service.get_messages(user, again)
    assert [(o.role, o.speaker, o.text, o.state) for o in old] == [
        (n.role, n.speaker, n.text, n.state) for n in new
    ]
    assert service.store.get(user, again).title == service.store.get(user, id).title
    whole(service, user, again, service.send(user, again, "go on"))
    assert service.get_messages(user, again)[-1].state == "whole"


def test_a_chat_of_sillytavern_comes_in(service, user):
    rows = [
        {"user_name": "Ming", "character_name": "Elysia", "create_date": "x"},
        {"name": "爱莉希雅", "is_user": False, "mes": "Hello!"},
        {"name": "Ming", "is_user": True, "mes": "Hi.", "extra": {}},
    ]
    id = import_conversation(service, user, ["elysia"], "\n".join(map(json.dumps, rows)).encode())
    assert [(line.role, line.speaker, line.text) for line in service.get_messages(user, id)] == [
        ("assistant", "elysia", "Hello!"), ("user", None, "Hi."),
    ]  # fmt: skip


GOOD = json.dumps({"role": "user", "text": "hi"})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "no message"),
        (b"\xff\xfe", "not UTF-8"),
        (f"{GOOD}\nnot json", "Line 2 is not JSON"),
        (f"{GOOD}\n[1]", "Line 2 is not an object"),
        (f'{GOOD}\n{{"text": "x"}}', "Line 2 has no 'role'"),
        (f'{GOOD}\n{{"role": "system", "text": "x"}}', "Line 2: the role is 'system'"),
        (f'{GOOD}\n{{"role": "user", "text": 3}}', "Line 2 has no 'text'"),
        (f"{GOOD}\n{json.dumps({'role': 'user', 'text': 'x' * 100_001})}", "100001 characters"),
        ('{"format": "other"}', "not 'elysia-chat'"),
        ('{"format": "elysia-chat", "version": 9}', "newer version"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_kept(service, user, content, expected):
    content = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(DataError, match=expected):
        import_conversation(service, user, ["elysia"], content)
    assert service.store.all(user) == []


def test_marks_of_time_and_state_are_checked():
    rows = [
        {"role": "user", "text": "a", "at": "soon", "state": "writing"},
        {"role": "assistant", "text": "b", "at": 12.5, "state": ["x"], "speaker": 4, "name": "N"},
    ]
    with pytest.raises(DataError, match="no 'role'"):
        parse_transcript(b'{"at": 1}')
    _, (first, second) = parse_transcript("\n".join(map(json.dumps, rows)).encode())
    assert first["state"] == "stopped" and first["created"] > 1e9
    assert second["state"] == "whole" and second["created"] == 12.5 and "speaker" not in second
