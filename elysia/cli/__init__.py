"""The command line: `VERBS` maps each verb to the function that builds its parser, imported on use.

A module per group of verbs holds their flags and what they print; the work is done by the other packages.
No model library is imported before a verb runs, so that `--help` of any verb answers at once.

Exit codes: 0 success; 1 an error in the input or the environment, or a check that failed; 2 a command line
that cannot be parsed; 130 interrupted; the exit code of a child process that failed.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from elysia import __version__
from elysia.cli.output import say, set_up_output, warn
from elysia.core.errors import ElysiaError, UsageError, nearest
from elysia.core.i18n import Text

# verb -> (module:function that returns its ArgumentParser, summary). The parser's default `run` does the
# work: run(args) -> exit code. Two verbs with one parser are aliases.
VERBS: dict[str, tuple[str, str]] = {
    "train": ("elysia.cli.train:train_parser", "fine-tune a model as a config says"),
    "plan": ("elysia.cli.train:plan_parser", "estimate what a training takes: memory, speed, data"),
    "chat": ("elysia.cli.chat:chat_parser", "talk to a model or a character in the terminal"),
    "talk": (
        "elysia.cli.character_chat:talk_parser",
        "talk to a character who remembers; the same as chat --character",
    ),
    "user add": ("elysia.cli.user:add_parser", "add a user of the page"),
    "user list": ("elysia.cli.user:list_parser", "list the users of the page"),
    "user password": ("elysia.cli.user:password_parser", "set a user's password"),
    "user remove": (
        "elysia.cli.user:remove_parser",
        "delete a user with all conversations and memories",
    ),
    "convert pth_to_hf": (
        "elysia.cli.export:pth_to_hf_parser",
        "turn a checkpoint into an adapter folder, or into a model folder",
    ),
    "convert merge": ("elysia.cli.export:merge_parser", "write base and adapter as one model"),
    "convert split": ("elysia.cli.export:split_parser", "split a model into one file per tensor"),
    "verify-merge": (
        "elysia.cli.verify:verify_merge_parser",
        "check that a merged model answers as base and adapter do",
    ),
    "prove": ("elysia.cli.verify:verify_merge_parser", "the same as verify-merge"),
    "verify-resume": (
        "elysia.cli.verify:verify_resume_parser",
        "check that a config's runs resume to the same bits",
    ),
    "verify-packing": (
        "elysia.cli.verify:verify_packing_parser",
        "check that packed samples learn as each alone does",
    ),
    "serve": ("elysia.cli.serve:serve_parser", "serve models under OpenAI's endpoints"),
    "client": ("elysia.cli.chat:client_parser", "talk to a server in the terminal"),
    "lmdeploy serve": (
        "elysia.cli.serve:lmdeploy_serve_parser",
        "start LMDeploy's server on a GPU and watch it",
    ),
    "lmdeploy proxy": (
        "elysia.cli.serve:lmdeploy_proxy_parser",
        "one address for several LMDeploy servers",
    ),
    "quantize gguf": (
        "elysia.cli.export:gguf_parser",
        "write a model as one GGUF file, and check it",
    ),
    "quantize awq": (
        "elysia.cli.export:awq_parser",
        "write 4-bit weights for LMDeploy, and check them",
    ),
    "list-cfg": ("elysia.cli.configs:list_cfg_parser", "list the bundled configs and XTuner's"),
    "copy-cfg": ("elysia.cli.configs:copy_cfg_parser", "copy one of them to edit it"),
    "list-dataset-format": (
        "elysia.cli.dataset:list_dataset_format_parser",
        "list the dataset formats",
    ),
    "log-dataset": ("elysia.cli.dataset:log_dataset_parser", "show samples as training sees them"),
    "check-custom-dataset": (
        "elysia.cli.dataset:check_custom_dataset_parser",
        "read every row of a config's data and report on it",
    ),
    "data script": ("elysia.cli.data:script_parser", "turn a script into rows for one character"),
    "data generate": (
        "elysia.cli.data:generate_parser",
        "let a model behind an endpoint write dialogues",
    ),
    "data persona": (
        "elysia.cli.character_rows:persona_parser",
        "write the rows that make a character of a model that can talk",
    ),
    "data lint": ("elysia.cli.data:lint_parser", "find faults in dataset files"),
    "check-configs": (
        "elysia.cli.configs:check_configs_parser",
        "check configs written for XTuner: what runs, what changes",
    ),
    "migrate": ("elysia.cli.configs:migrate_parser", "turn an XTuner config into flat settings"),
    "train-tokenizer": (
        "elysia.cli.new_model:train_tokenizer_parser",
        "train a small tokenizer from text",
    ),
    "init-model": ("elysia.cli.new_model:init_model_parser", "create a model with random weights"),
    "import gguf": (
        "elysia.cli.new_model:import_gguf_parser",
        "turn a GGUF into a model folder that can be trained",
    ),
    "probe": (
        "elysia.cli.evaluate:probe_parser",
        "ask a model who it is, and whether the persona leaks",
    ),
    "voice say": ("elysia.cli.voice:say_parser", "say a text into a file"),
    "voice list": ("elysia.cli.voice:list_parser", "list the voices"),
    "voice import": ("elysia.cli.voice:import_parser", "turn a VITS checkpoint into a voice"),
    "voice prepare": ("elysia.cli.voice:prepare_parser", "prepare recordings to train a voice on"),
    "voice train": ("elysia.cli.voice:train_parser", "train a voice as a config says"),
    "voice export": ("elysia.cli.voice:export_parser", "turn a trained checkpoint into a voice"),
    "voice explain": (
        "elysia.cli.voice:explain_parser",
        "show each step from a text to its phonemes",
    ),
    "evaluate persona": (
        "elysia.cli.evaluate:score_parser",
        "the persona scorecard: voice, identity, leaks, copying, forgetting",
    ),
    "evaluate compare": ("elysia.cli.evaluate:compare_parser", "scorecards side by side"),
    "score": ("elysia.cli.evaluate:score_parser", "the same as evaluate persona"),
    "card show": ("elysia.cli.card:show_parser", "show the character on a card"),
    "card convert": ("elysia.cli.card:convert_parser", "write a card as another kind or version"),
    "card check": ("elysia.cli.card:check_parser", "find faults in a card or lorebook"),
    "kb add": ("elysia.cli.kb:add_parser", "add documents for a character to look things up in"),
    "kb list": ("elysia.cli.kb:list_parser", "list the documents"),
    "kb search": ("elysia.cli.kb:search_parser", "find the passages that answer a question"),
    "kb remove": ("elysia.cli.kb:remove_parser", "remove documents from a shelf"),
    "demo": ("elysia.cli.demo:demo_parser", "every stage with a tiny model, on a CPU"),
    "help": ("elysia.cli.help:help_parser", "show this, or a verb's own help"),
    "version": ("elysia.cli.help:version_parser", "print the version"),
}
# The files in requirements/ and the imported packages that each of them installs.
PACKAGES_BY_LOCK = {
    "data": "rensa zhon pysubs2 sklearn sacrebleu",
    "serve": "gguf xllamacpp fastapi uvicorn starlette prometheus_client httpx",
    "chat": "sqlalchemy alembic chromadb langchain_core opencc tantivy pypdf docx bs4 lxml",
    "web": "streamlit gradio",
    "voice": "pypinyin jieba eng_to_ipa onnxruntime soundfile pyloudnorm scipy "
    "monotonic_alignment_search",
}
LOCK_BY_PACKAGE = {
    package: f"requirements/{lock}.lock"
    for lock, packages in PACKAGES_BY_LOCK.items()
    for package in packages.split()
}
GROUPS = {verb.split()[0] for verb in VERBS if " " in verb}
# XTuner's verbs that are missing here, and the sentence that says what to do instead.
ABSENT = {
    "test": "cli.absent_test",
    "preprocess": "cli.absent_preprocess",
    "mmbench": "cli.absent_vision",
    "eval_refcoco": "cli.absent_vision",
    "dist_train": "cli.absent_dist_train",
}


def build_verb_parser(verb: str) -> ArgumentParser:
    """The argument parser of a verb of VERBS; imports that verb's module."""
    module, function = VERBS[verb][0].split(":")
    parser: ArgumentParser = getattr(importlib.import_module(module), function)()
    parser.usage = (parser.usage or "").replace(parser.prog, f"elysia {verb}", 1)
    parser.prog = f"elysia {verb}"
    return parser


def find_verb(words: Sequence[str]) -> tuple[str, list[str]]:
    """The verb that `words` begin with, and the words after it.

    Raises UsageError, naming the nearest verb, when there is none.
    """
    first = words[0].lower()
    if first in VERBS:
        return first, list(words[1:])
    if first in GROUPS:
        return find_member(first, words[1:])
    if first in ABSENT:
        raise UsageError(ABSENT[first], verb=first)
    known = [verb.split()[0] for verb in VERBS] + [verb.split()[-1] for verb in VERBS]
    raise UsageError("cli.no_such_verb", verb=words[0], hint=nearest(first, known))


def find_member(group: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """The two-word verb `group words[0]` and the words after it; `help group` for the group's --help.

    Raises UsageError, naming the nearest verb of the group, when there is none.
    """
    members = [verb.split()[1] for verb in VERBS if verb.startswith(group + " ")]
    if not words:
        raise UsageError("cli.group_needs_verb", group=group, members=members)
    if words[0] in ("-h", "--help"):
        return "help", [group]
    member = words[0].lower().replace("-", "_")
    if member not in members:
        hint = nearest(member, members)
        raise UsageError(
            "cli.no_such_member", group=group, verb=words[0], members=members, hint=hint
        )
    return f"{group} {member}", list(words[1:])


def dispatch(words: Sequence[str]) -> int:
    """Run the command line `words`; returns the exit code, raises what the verb raises."""
    if not words:
        dispatch(["help"])
        return 2
    if words[0] in ("-h", "--help"):
        words = ["help", *words[1:]]
    elif words[0] in ("-v", "-V", "--version"):
        words = ["version"]
    verb, rest = find_verb(words)
    args = build_verb_parser(verb).parse_args(rest)
    code: int = args.run(args)
    return code


def describe_fault(error: BaseException) -> Text | None:
    """The sentence for an exception that the environment caused; None for a mistake of our own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        if not error.filename:
            return Text("cli.disk_full")
        return Text("cli.disk_full_writing", {"path": error.filename})
    if isinstance(error, OSError) and error.filename and error.strerror:
        return Text("core.at", {"where": error.filename, "problem": f"{error.strerror}."})
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("elysia"):
        lock = LOCK_BY_PACKAGE.get((error.name or "").split(".")[0], "requirements.txt")
        return Text("cli.package_missing", {"package": error.name, "lock": lock})
    if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch
        return Text("cli.out_of_memory", {"reason": str(error).splitlines()[0]})
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; `argv` without the program's name. Returns the exit code.

    An error in the user's input or environment becomes one sentence on stderr; a mistake of our own keeps
    its traceback, and with ELYSIA_DEBUG=1 every error does.
    """
    set_up_output()
    try:
        code = dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: 0 after --help, 2 after a usage error
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        say("", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`elysia list-cfg | head -1`). Without this, Python would complain again
        # when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        sentence = error if isinstance(error, ElysiaError) else describe_fault(error)
        if sentence is None or os.environ.get("ELYSIA_DEBUG", "0") not in ("", "0"):
            raise
        warn(f"error: {sentence}")
        return 2 if isinstance(error, UsageError) else 1


__all__ = ["VERBS", "__version__", "build_verb_parser", "dispatch", "find_verb", "main"]
