"""The command line: a dict from verb to the function that builds its parser, imported on use.

This package is the only place that prints. It knows the flags and the exit codes, and nothing of
how a verb's work is done. Nothing heavy is imported before a verb runs: `--help` of any verb stays
light.

Exit codes: 0 done; 1 a fault of input or surroundings, or a verdict that failed; 2 a command line
that cannot be read; 130 interrupted; a child's own code when a child failed.
"""

from __future__ import annotations

import importlib
import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from elysia import __version__
from elysia.cli.output import say, set_up_output, warn
from elysia.core.errors import ElysiaError, UsageError, nearest

# verb -> (module:function that returns the verb's ArgumentParser, summary). The parser's default
# `run` does the work: run(args) -> exit code.
VERBS: dict[str, tuple[str, str]] = {
    "train": ("elysia.cli.train:train_parser", "fine-tune a model as a config says"),
    "plan": ("elysia.cli.train:plan_parser", "say what a training will take: memory, speed, data"),
    "chat": ("elysia.cli.chat:chat_parser", "talk to a model in the terminal"),
    "talk": ("elysia.cli.character_chat:talk_parser", "talk to a character who remembers"),
    "user add": ("elysia.cli.user:add_parser", "add a user of the page"),
    "user list": ("elysia.cli.user:list_parser", "list the users of the page"),
    "user password": ("elysia.cli.user:password_parser", "set a user's password"),
    "user remove": ("elysia.cli.user:remove_parser", "delete a user and all that is theirs"),
    "convert pth_to_hf": (
        "elysia.cli.export:pth_to_hf_parser",
        "turn a checkpoint into an adapter folder, or into a model folder",
    ),
    "convert merge": ("elysia.cli.export:merge_parser", "write base and adapter as one model"),
    "convert split": ("elysia.cli.export:split_parser", "cut a model's files into the smallest"),
    "prove": (
        "elysia.cli.verify:verify_merge_parser",
        "show that a merged model answers as base and adapter do",
    ),
    "verify-resume": (
        "elysia.cli.verify:verify_resume_parser",
        "show that a config's runs resume to the same bits",
    ),
    "verify-packing": (
        "elysia.cli.verify:verify_packing_parser",
        "show that packed samples learn as each alone does",
    ),
    "serve": ("elysia.cli.serve:serve_parser", "serve models under OpenAI's endpoints"),
    "client": ("elysia.cli.chat:client_parser", "talk to a server in the terminal"),
    "lmdeploy serve": (
        "elysia.cli.serve:lmdeploy_serve_parser",
        "start LMDeploy's server on a GPU and watch it",
    ),
    "lmdeploy proxy": (
        "elysia.cli.serve:lmdeploy_proxy_parser",
        "one door to several LMDeploy servers",
    ),
    "quantize gguf": ("elysia.cli.export:gguf_parser", "write a model as one GGUF file, proved"),
    "quantize awq": ("elysia.cli.export:awq_parser", "write 4-bit weights for LMDeploy, proved"),
    "list-cfg": ("elysia.cli.configs:list_cfg_parser", "list the bundled configs"),
    "copy-cfg": ("elysia.cli.configs:copy_cfg_parser", "copy a bundled config to edit it"),
    "list-dataset-format": (
        "elysia.cli.dataset:list_dataset_format_parser",
        "list the dataset formats",
    ),
    "log-dataset": ("elysia.cli.dataset:log_dataset_parser", "show samples as training sees them"),
    "check-custom-dataset": (
        "elysia.cli.dataset:check_custom_dataset_parser",
        "read every row of a config's data and report",
    ),
    "data script": ("elysia.cli.data:script_parser", "make rows of a script, for one character"),
    "data generate": (
        "elysia.cli.data:generate_parser",
        "have a model behind an endpoint write dialogues",
    ),
    "data lint": ("elysia.cli.data:lint_parser", "say what is wrong with dataset files"),
    "check-configs": (
        "elysia.cli.configs:check_configs_parser",
        "judge configs written for XTuner: what runs, what changes",
    ),
    "migrate": (
        "elysia.cli.configs:migrate_parser",
        "turn a config of XTuner's into flat settings",
    ),
    "train-tokenizer": (
        "elysia.cli.new_model:train_tokenizer_parser",
        "train a small tokenizer from text",
    ),
    "init-model": ("elysia.cli.new_model:init_model_parser", "make a model with random weights"),
    "probe": ("elysia.cli.evaluate:probe_parser", "ask who it is, and whether it leaks elsewhere"),
    "voice say": ("elysia.cli.voice:say_parser", "say a text into a file"),
    "voice list": ("elysia.cli.voice:list_parser", "list the voices"),
    "voice import": ("elysia.cli.voice:import_parser", "bring a VITS checkpoint as a voice"),
    "voice prepare": (
        "elysia.cli.voice:prepare_parser",
        "make recordings ready to train a voice on",
    ),
    "voice train": ("elysia.cli.voice:train_parser", "train a voice as a config says"),
    "voice export": (
        "elysia.cli.voice:export_parser",
        "make a trained checkpoint a voice",
    ),
    "voice explain": (
        "elysia.cli.voice:explain_parser",
        "show each step from a text to its sounds",
    ),
    "evaluate persona": (
        "elysia.cli.evaluate:score_parser",
        "the persona scorecard: voice, identity, leaks, copying, forgetting",
    ),
    "evaluate compare": ("elysia.cli.evaluate:compare_parser", "scorecards side by side"),
    "score": ("elysia.cli.evaluate:score_alias_parser", "the same as evaluate persona"),
    "card show": ("elysia.cli.card:show_parser", "show who a character card is"),
    "card convert": ("elysia.cli.card:convert_parser", "write a card as another kind or version"),
    "card check": ("elysia.cli.card:check_parser", "say what is odd in a card or lorebook"),
    "kb add": ("elysia.cli.kb:add_parser", "put documents where a character looks things up"),
    "kb list": ("elysia.cli.kb:list_parser", "list the documents"),
    "kb search": ("elysia.cli.kb:search_parser", "find the spans that answer a question"),
    "kb remove": ("elysia.cli.kb:remove_parser", "take documents off a shelf"),
    "demo": ("elysia.cli.demo:demo_parser", "the whole road with a tiny model, on a CPU"),
    "help": ("elysia.cli.help:help_parser", "show this, or a verb's own help"),
    "version": ("elysia.cli.help:version_parser", "print the version"),
}
# The locks beside requirements.txt, and the packages that are imported from each.
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
# XTuner's verbs that this project does not have, and what to do instead.
ABSENT = {
    "test": "'test' is not served; 'probe' scores a persona, and training logs the held-out loss.",
    "preprocess": "'preprocess' is not served: it prepares arXiv and RefCOCO for other models.",
    "mmbench": "'mmbench' is not served: no vision models are trained here.",
    "eval_refcoco": "'eval_refcoco' is not served: no vision models are trained here.",
    "dist_train": "'dist_train' is 'train' with NPROC_PER_NODE set, or under torchrun.",
}


def build_verb_parser(verb: str) -> ArgumentParser:
    """The argument parser of a verb of VERBS; imports that verb's module."""
    module, function = VERBS[verb][0].split(":")
    parser: ArgumentParser = getattr(importlib.import_module(module), function)()
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
        raise UsageError(ABSENT[first])
    known = [verb.split()[0] for verb in VERBS] + [verb.split()[-1] for verb in VERBS]
    guess = nearest(first, known)
    raise UsageError(f"There is no verb '{words[0]}'.{guess} 'elysia help' lists the verbs.")


def find_member(group: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """The two-word verb `group words[0]`; a group alone, or with --help, is asked for its help."""
    members = [verb.split()[1] for verb in VERBS if verb.startswith(group + " ")]
    if not words:
        raise UsageError(f"'{group}' wants one of: {', '.join(members)}.")
    if words[0] in ("-h", "--help"):
        return "help", [group]
    member = words[0].lower().replace("-", "_")
    if member not in members:
        guess = nearest(member, members)
        raise UsageError(f"'{group}' has no '{words[0]}', only {', '.join(members)}.{guess}")
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


def describe_fault(error: BaseException) -> str | None:
    """The sentence for a fault of the surroundings that is no ElysiaError, or None for our own
    mistakes.
    """
    import errno

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return f"The disk is full{where}. Free some space, then run the same command again."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("elysia"):
        lock = LOCK_BY_PACKAGE.get((error.name or "").split(".")[0], "requirements.txt")
        return (
            f"The package '{error.name}' is not installed. "
            f"Install the project's requirements ({lock}) into this environment."
        )
    if type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch
        return (
            "The device ran out of memory. Use a smaller batch_size or max_length, "
            f"or fewer bits. ({str(error).splitlines()[0]})"
        )
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; `argv` without the program's name. Returns the exit code.

    Mistakes of the user become one sentence on stderr; our own keep their traceback. ELYSIA_DEBUG=1
    shows the traceback of either.
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
        # The reader went away (`elysia list-cfg | head -1`): no words, and none at interpreter exit
        # either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        sentence = str(error) if isinstance(error, ElysiaError) else describe_fault(error)
        if sentence is None or os.environ.get("ELYSIA_DEBUG", "0") not in ("", "0"):
            raise
        warn(f"error: {sentence}")
        return 2 if isinstance(error, UsageError) else 1


__all__ = ["VERBS", "__version__", "build_verb_parser", "dispatch", "find_verb", "main"]
