"""The command line's own manners: verbs, exit codes, sentences, lightness."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from elysia import __version__, cli
from elysia.core.errors import DataError, UsageError

ROOT = Path(cli.__file__).resolve().parents[2]


def run(*words: str, **kwargs: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "elysia", *words], capture_output=True, text=True, **kwargs
    )


def raising(error: BaseException):
    """A verb that fails with `error`."""

    def parser():
        from elysia.cli.output import build_parser

        def fail(args):
            raise error

        return build_parser("broken", "", "", fail)

    return parser


@pytest.fixture
def broken(monkeypatch):
    """Makes a verb 'broken' that raises what it is given."""

    def install(error: BaseException) -> None:
        monkeypatch.setitem(cli.VERBS, "broken", ("tests_broken:parser", ""))
        module = type(sys)("tests_broken")
        module.parser = raising(error)
        monkeypatch.setitem(sys.modules, "tests_broken", module)

    return install


def test_a_wrong_verb_exits_2_and_names_the_nearest(capsys):
    assert cli.main(["trian", "x.py"]) == 2
    shown = capsys.readouterr()
    assert "Did you mean 'train'?" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("words", [["nosuch"], ["convert"], ["convert", "megre"], ["mmbench"], []])
def test_what_is_no_verb_exits_2(words, capsys):
    assert cli.main(words) == 2


def test_a_misspelt_member_of_a_group_is_suggested(capsys):
    assert cli.main(["convert", "megre", "a", "b", "c"]) == 2
    assert "Did you mean 'merge'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb, capsys):
    assert cli.main([*verb.split(), "--help"]) == 0
    assert f"usage: elysia {verb}" in capsys.readouterr().out
    assert cli.main(["help", *verb.split()]) == 0
    assert f"usage: elysia {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--version"], ["version"], ["-v"]])
def test_the_version_is_printed(words, capsys):
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_a_fault_of_the_user_is_one_sentence_and_exit_1(broken, capsys):
    broken(DataError("rows.json, row 3: no 'output'."))
    assert cli.main(["broken"]) == 1
    assert capsys.readouterr().err == "error: rows.json, row 3: no 'output'.\n"


def test_a_usage_error_exits_2(broken, capsys):
    broken(UsageError("Say which."))
    assert cli.main(["broken"]) == 2


def test_a_full_disk_is_a_sentence_with_the_file(broken, capsys):
    broken(OSError(28, "No space left on device", "out.safetensors"))
    assert cli.main(["broken"]) == 1
    assert "disk is full while writing out.safetensors" in capsys.readouterr().err


def test_a_path_that_cannot_be_used_is_a_sentence(broken, capsys):
    broken(PermissionError(13, "Permission denied", "/root/x"))
    assert cli.main(["broken"]) == 1
    assert capsys.readouterr().err == "error: /root/x: Permission denied.\n"


def test_memory_that_runs_out_is_a_sentence(broken, capsys):
    broken(type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried ..."))
    assert cli.main(["broken"]) == 1
    assert "ran out of memory" in capsys.readouterr().err


def test_help_of_a_group_lists_its_members(capsys):
    for words in (["convert", "--help"], ["help", "convert"]):
        assert cli.main(words) == 0
        shown = capsys.readouterr().out
        assert "convert merge" in shown
        assert "list-cfg" not in shown


def test_a_package_that_is_not_installed_is_a_sentence(broken, capsys):
    broken(ModuleNotFoundError("No module named 'peft'", name="peft"))
    assert cli.main(["broken"]) == 1
    assert "'peft' is not installed" in capsys.readouterr().err


def test_our_own_mistakes_keep_their_traceback(broken):
    broken(KeyError("x"))
    with pytest.raises(KeyError):
        cli.main(["broken"])


def test_debug_shows_the_traceback_of_a_sentence_too(broken, monkeypatch):
    monkeypatch.setenv("ELYSIA_DEBUG", "1")
    broken(DataError("no"))
    with pytest.raises(DataError):
        cli.main(["broken"])


def test_an_interrupt_exits_130(broken, capsys):
    broken(KeyboardInterrupt())
    assert cli.main(["broken"]) == 130


def test_an_unknown_flag_exits_2(capsys):
    assert cli.main(["train", "x.py", "--nosuch"]) == 2


def test_a_closed_pipe_is_quiet():
    """The reader is gone before anything is written."""
    read, write = os.pipe()
    os.close(read)
    child = subprocess.run(
        [sys.executable, "-m", "elysia", "help", "--markdown"], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert child.stderr == b""
    assert child.returncode == 141


@pytest.mark.parametrize(
    "words", [["--help"], ["list-cfg"], *[[*v.split(), "--help"] for v in cli.VERBS]], ids=" ".join
)
def test_help_and_list_cfg_import_nothing_heavy(words):
    code = (
        "import sys; from elysia.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'mmengine', 'transformers', 'numpy', 'peft'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT
    )
    assert child.returncode == 0, child.stderr


def test_the_module_runs_as_a_program_with_the_same_exit_codes():
    assert run("nosuch").returncode == 2
    assert run("version").stdout == f"{__version__}\n"


def test_a_character_that_stdout_cannot_show_is_no_crash():
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    child = run("help", "chat", env=env)
    assert child.returncode == 0, child.stderr


def test_the_documented_command_line_is_the_one_that_there_is():
    """docs/cli.md is written by `elysia help --markdown`."""
    from elysia.cli.help import render_markdown

    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == render_markdown()
