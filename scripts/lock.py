"""Write requirements.txt and requirements/*.lock, an extra of pyproject.toml each, from this environment.

Resolve once by hand (`pip install torch==2.13.0 && pip install -e '.[train,serve,data,voice,dev]'`), test, then
`python scripts/lock.py`. Users install the pins with --no-deps, which takes a minute instead of a resolver's
fifteen. torch is left out of the lock: Makefile installs it first and alone, for CPU or CUDA.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# Each is installed by itself on top of the first, so some packages stand in several.
ON_TOP = {
    "serve": "Serving and GGUF",
    "data": "Linting, making and scoring data",
    "voice": "Her voice",  # espeakng-loader holds eSpeak NG, which is GPL-3
    "chat": "Conversations, memory and knowledge",
    "web": "The pages",
    "dev": "Tests and checks",
}
# What a package names and nothing here uses: pocketsphinx's microphone.
WITHOUT = {"sounddevice"}


def closure(names: list[str], skip: set[str]) -> dict[str, str]:
    """Name to version of everything that `names` need in this environment, `skip` and its needs left out."""
    versions: dict[str, str] = {}
    queue = [Requirement(name) for name in names]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in versions or name in skip or name in WITHOUT:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(
                f"{name} is not installed here: install it, then lock again."
            ) from None
        versions[name] = package.version
        for line in package.requires or []:
            need = Requirement(line)
            extras = requirement.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                queue.append(need)
    return versions


def main() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    torch = set(closure(["torch"], set()))
    train = closure(extras["train"], torch)
    write("requirements.txt", train, "Training and chat")
    for name, what in ON_TOP.items():
        pins = closure(extras[name], torch | set(train))
        write(f"requirements/{name}.lock", pins, f"{what}, on top of requirements.txt")


def write(target: str, pins: dict[str, str], what: str) -> None:
    """One lock."""
    lines = [f"{name}=={version}" for name, version in sorted(pins.items())]
    head = f"# {what}. Written by scripts/lock.py; install with --no-deps, after torch==2.13.0.\n"
    (ROOT / target).write_text(head + "\n".join(lines) + "\n")
    print(f"{target}: {len(lines)} packages")


if __name__ == "__main__":
    main()
