"""The pages keep to what there is: links, commands, tests, settings and the version."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import elysia
from elysia.cli import build_verb_parser, find_verb
from elysia.core.errors import ElysiaError
from elysia.train.config.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
READMES = [ROOT / "README.md", ROOT / "README.en.md"]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)


def name_of(page):
    return str(page.relative_to(ROOT))


def script(path):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(text, *languages):
    return [body for language, body in FENCE.findall(text) if language in languages]


def commands(text):
    """Command lines of the bash blocks as words; here-documents are skipped, `\\` joins lines."""
    for block in blocks(text, "bash", "sh", "shell"):
        lines = iter(block.replace("\\\n", " ").splitlines())
        for line in lines:
            yield from filter(
                None, (shlex.split(part, comments=True) for part in re.split(r"&&| \| ", line))
            )
            if heredoc := re.search(r"<<-?\s*['\"]?(\w+)", line):
                while next(lines, heredoc[1]).strip() != heredoc[1]:
                    continue


def without_environment(words):
    return words[
        next((i for i, word in enumerate(words) if not re.match(r"\w+=", word)), len(words)) :
    ]


def complaint(words):
    """What is wrong with a command of ours, or None."""
    words = without_environment(words)
    for end in ("|", ">", ">>", "<", "<<", "<<<"):
        words = words[: words.index(end)] if end in words else words
    if not words:
        return None
    program = Path(words[0]).name
    if program.startswith("python") and words[1:3] == ["-m", "elysia"]:
        program, words = "elysia", words[2:]
    try:
        if program in ("xtuner", "elysia"):
            # As main() does for a flag in the verb's place.
            words = ["", "help", *words[2:]] if words[1:2] == ["--help"] else words
            verb, rest = find_verb(words[1:])
            build_verb_parser(verb).parse_args(rest)
        elif words[1:2] == ["data/generate_data.py"]:
            if words[2] == "script":
                verb, rest = find_verb(["data", *words[2:]])
                build_verb_parser(verb).parse_args(rest)
                return None
            card = words[2] == "card"
            parser = script(ROOT / words[1]).parser(card)
            parser.parse_args(words[2 + card :])
        elif program == "merge.sh":
            assert (ROOT / "merge.sh").exists() and len(words) > 1
        elif program == "make":
            targets = re.findall(r"^([\w$()/.-]+):", (ROOT / "Makefile").read_text(), re.M)
            targets = [target.replace("$(VENV)", ".venv") for target in targets]
            named = [word for word in words[1:] if "=" not in word]
            return next((f"make has no target {w}" for w in named if w not in targets), None)
        elif len(words) > 1 and program.startswith("python") and words[1].endswith(".py"):
            return None if (ROOT / words[1]).exists() else f"{words[1]} is not there"
    except (ElysiaError, SystemExit) as error:
        return str(error)
    return None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_on_a_page_is_one_that_the_parsers_take(page, capsys):
    for words in commands(page.read_text(encoding="utf-8")):
        wrong = complaint(words)
        assert wrong is None, (
            f"{name_of(page)}: {shlex.join(words)}: {wrong} {capsys.readouterr().err}"
        )


@pytest.mark.parametrize(
    "line",
    [
        "xtuner trian configs/elysia_qlora.py",
        "elysia train configs/elysia_qlora.py --deepseed x",
        "CUDA_VISIBLE_DEVICES=0 .venv/bin/xtuner chat",
        "make everything",
        "python data/generate_data.py card --output x.json",
        "python scripts/nothing.py",
    ],
)
def test_a_wrong_command_would_be_found(line, capsys):
    (words,) = commands(f"```bash\n{line}\n```\n")
    assert complaint(words) is not None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:|#", target):
            continue
        assert (page.parent / target.split("#")[0]).exists(), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_a_page_names_exists(page):
    for file, test in re.findall(
        r"(tests/[\w/]+\.py)(?:::(\w+))?", page.read_text(encoding="utf-8")
    ):
        assert (ROOT / file).exists(), f"{name_of(page)} names {file}"
        if test:
            assert f"def {test}(" in (ROOT / file).read_text(), (
                f"{name_of(page)} names {file}::{test}"
            )


@pytest.mark.parametrize("page", READMES, ids=name_of)
def test_the_readme_names_both_commands_and_its_tree_exists(page):
    text = page.read_text(encoding="utf-8")
    assert "make demo" in text and "make test" in text
    trees = blocks(text, "text")
    paths = [line.split()[0] for tree in trees for line in tree.splitlines() if line.strip()]
    assert len(paths) > 20
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing, f"{name_of(page)} shows {missing}"


def test_the_page_of_settings_is_what_the_script_writes():
    module = script(ROOT / "scripts" / "settings_doc.py")
    page = module.build_page()
    committed = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert committed == page, "python scripts/settings_doc.py > docs/settings.md"


def test_every_setting_has_its_line_and_no_line_is_left_of_an_old_one():
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)`", page, re.M) == list(Settings.model_fields)
    assert all(setting.description for setting in Settings.model_fields.values())


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == elysia.__version__


def test_the_list_of_modules_is_what_the_script_writes():
    module = script(ROOT / "scripts" / "architecture_doc.py")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert page == module.render_page(), "python scripts/architecture_doc.py"


def test_every_path_in_the_architecture_page_exists():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## Modules")[0]
    paths = re.findall(r"`((?:elysia|tests|scripts|tts|configs|docs)/[\w./]+)`", page)
    paths += [f"elysia/{path}" for path in re.findall(r"`([a-z]+/[\w/]+(?:\.py|/))`", page)]
    assert len(paths) > 40
    folders = ("elysia/elysia", "elysia/tests", "elysia/scripts", "elysia/docs", "elysia/tts")
    missing = [p for p in paths if not (ROOT / p).exists() and not p.startswith(folders)]
    assert not missing, f"docs/architecture.md names {missing}"
