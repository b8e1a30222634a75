"""People are added, given passwords and removed from the terminal."""

from __future__ import annotations

import io
import sys

import pytest

from elysia.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    def run(*words, typed=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = main(["user", *words, "--database", str(tmp_path / "chat.db")])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run


def test_somebody_comes_changes_the_password_and_goes(run):
    assert run("add", "anna", typed="a long password\n")[0] == 0
    code, said = run("add", "anna", typed="a long password\n")
    assert code == 2 and "There is a user anna already" in said
    assert run("password", "anna", typed="another password\n")[0] == 0
    assert "anna\n" in run("list")[1]
    assert run("remove", "anna")[0] == 0
    assert "anna" not in run("list")[1]
    assert run("remove", "anna")[0] == 2


def test_a_short_password_or_a_name_with_a_colon_is_refused(run):
    assert "8 to 1000" in run("add", "anna", typed="short\n")[1]
    assert "no colon" in run("add", "openid:x", typed="a long password\n")[1]
    assert run("list")[1] == ""
