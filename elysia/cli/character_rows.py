"""`elysia data persona`: the rows that make a character of a model that can already talk."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from elysia.cli.options import require_at_least
from elysia.cli.output import build_parser, say
from elysia.core.errors import UsageError

if TYPE_CHECKING:
    from elysia.data.synthesis.answer_journal import BaseAnswer, BaseRequest
    from elysia.engines.base import Engine
    from elysia.models.chat_format import ChatFormat

CONTEXT = 4096  # tokens for the card, some examples and a reply, in each slot
REPETITION_PENALTY = 1.05  # small models loop without one


def persona_parser() -> ArgumentParser:
    """The parser of `elysia data persona`."""
    parser = build_parser(
        "data persona",
        "CARD --base MODEL -o FILE [options]",
        "Write rows that make a character of MODEL: a tenth says who it is, the others are talk in the "
        "character's voice and general questions with MODEL's own answers. MODEL's answers are stored "
        "beside the output: run it again to continue where it stopped.",
        write_persona_rows,
    )
    add = parser.add_argument
    add("card", metavar="CARD", help="the character's card, with examples of how it talks")
    add("--base", required=True, metavar="MODEL",
        help="what is trained, or a stronger model: a folder, a name, a .gguf file or a URL")  # fmt: skip
    add("-o", "--output", required=True, metavar="FILE", help="the rows (.jsonl)")
    add("--heldout", metavar="FILE", help="general rows that are not trained on (.jsonl)")
    add("--count", type=int, default=600, metavar="N", help="rows, at most (default: 600)")
    add("--replay", type=float, default=0.45, metavar="SHARE",
        help="of general questions with the base's own answers (default: 0.45)")  # fmt: skip
    add("--seed", type=int, default=0, help="of the choice of rows and answers (default: 0)")
    add("--parallel", type=int, default=8, metavar="N", help="replies at a time (default: 8)")
    add("--threads", type=int, metavar="N", help="of llama.cpp (default: all but one)")
    add("--remote-model", metavar="NAME", help="which of a URL's models (default: its first)")
    return parser


def write_persona_rows(args: Namespace) -> int:
    """Ask the base what is not kept yet, then write the rows; the answers' file stays for the next run."""
    require_at_least(args, 20, "--count")
    require_at_least(args, 1, "--parallel")
    if not 0 <= args.replay <= 0.8:
        raise UsageError("cli.replay_out_of_range", value=args.replay)
    from elysia.core.files import render_json_lines, write_atomic
    from elysia.core.persona import Persona
    from elysia.data.synthesis.answer_journal import AnswerJournal
    from elysia.data.synthesis.character_dialogues import build_character_rows

    persona = Persona.load(args.card)
    output = Path(args.output)
    if not output.parent.is_dir() or output.is_dir():
        raise UsageError("data.output_without_folder", path=output)
    journal = AnswerJournal(output.with_name(output.name + ".answers"), _identify_base(args))
    answerer = _LazyAnswerer(args)
    try:
        rows = build_character_rows(
            persona, journal, answerer, count=args.count, replay=args.replay, seed=args.seed
        )
    finally:
        answerer.close()
    write_atomic(output, render_json_lines(rows.train))
    if args.heldout:
        write_atomic(Path(args.heldout), render_json_lines(rows.general_heldout))
    for reason, number in rows.refused.most_common():
        say(f"{number:>7}  left out: {reason}")
    total = sum(rows.groups.values())
    shares = ", ".join(f"{name} {number / total:.0%}" for name, number in rows.groups.items())
    say(f"{output}: {len(rows.train)} rows ({shares})")
    return 0


def _identify_base(args: Namespace) -> str:
    """What answers are kept under: a file or folder that changed is another base."""
    path = Path(args.base)
    weights = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    stats = [file.stat() for file in weights if file.is_file()]
    state = "".join(f" {stat.st_size} {stat.st_mtime_ns}" for stat in stats)
    return f"{args.base} {args.remote_model or ''}{state}"


class _LazyAnswerer:
    """Asks an engine, which is loaded when the first answer is missing."""

    def __init__(self, args: Namespace) -> None:
        self._args = args
        self._loaded: tuple[Engine, ChatFormat] | None = None

    def __call__(self, requests: Sequence[BaseRequest]) -> Iterator[tuple[int, BaseAnswer]]:
        engine, chat_format = self._loaded or self._load()
        say(f"Asking {self._args.base} for {len(requests)} answers")
        yield from ask_engine(engine, chat_format, requests)

    def _load(self) -> tuple[Engine, ChatFormat]:
        from elysia.app.model_loading import ModelConfig, load_engine

        args = self._args
        config = ModelConfig(
            args.base, context=None if "://" in args.base else _read_context(args.base),
            slots=args.parallel, remote_model=args.remote_model, threads=args.threads,
        )  # fmt: skip
        self._loaded = load_engine(config)
        return self._loaded

    def close(self) -> None:
        """Release the engine, if there is one."""
        if self._loaded:
            self._loaded[0].close()


def _read_context(base: str) -> int | None:
    """CONTEXT, or less for a GGUF that was trained on less; None leaves it to the engine."""
    if not base.endswith(".gguf") or not Path(base).is_file():
        return None
    from elysia.models.gguf.gguf_reader import read_gguf_header

    header = read_gguf_header(Path(base))
    return min(
        CONTEXT, int(header.get(f"{header.get('general.architecture')}.context_length", CONTEXT))
    )


def ask_engine(
    engine: Engine, chat_format: ChatFormat, requests: Sequence[BaseRequest]
) -> Iterator[tuple[int, BaseAnswer]]:
    """(place, answer) as they come, as many at a time as the engine has slots."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    from elysia.data.synthesis.answer_journal import BaseAnswer
    from elysia.engines.base import GenerationRequest, Sampling

    def ask(request: BaseRequest) -> BaseAnswer:
        sampling = Sampling(
            max_new_tokens=request.max_new_tokens, temperature=request.temperature, top_p=0.9,
            seed=request.seed, repetition_penalty=REPETITION_PENALTY,
        )  # fmt: skip
        query = GenerationRequest(
            request.messages, chat_format.template, chat_format.stop, sampling
        )
        deltas = list(engine.stream(query))
        return BaseAnswer("".join(d.text for d in deltas), deltas[-1].finish == "stop")

    with ThreadPoolExecutor(max(engine.slots, 1)) as pool:
        pending = {pool.submit(ask, request): place for place, request in enumerate(requests)}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        finally:
            for future in pending:
                future.cancel()
