"""The files for containers, as far as they can be held to the code without Docker."""

import json
from pathlib import Path

import pytest
import yaml

from elysia.cli.serve import serve_parser

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docker"
FILES = sorted(FOLDER.glob("compose.*.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def compose(request):
    return yaml.safe_load(request.param.read_text(encoding="utf-8"))


def test_the_gateway_s_command_is_one_that_serve_takes(compose):
    gateway = compose["services"]["gateway"]
    verb, *flags = gateway["command"]
    args = serve_parser().parse_args(flags)
    assert verb == "serve" and args.models[0].startswith("elysia=")
    # Beyond the container it listens only with keys, which are a secret that is mounted.
    assert args.host == "0.0.0.0" and args.keys == f"/run/secrets/{gateway['secrets'][0]}"
    assert gateway["secrets"][0] in compose["secrets"]
    (port,) = gateway["ports"]
    assert port == f"127.0.0.1:{args.port}:{args.port}"
    seconds = int(gateway.get("stop_grace_period", "40s").removesuffix("s"))
    assert seconds > args.drain


def test_what_a_file_points_to_is_there(compose):
    for name, service in compose["services"].items():
        build = service.get("build")
        if build:
            context = (FOLDER / build["context"]).resolve()
            assert context == ROOT and (context / build["dockerfile"]).is_file()
        assert set(service.get("depends_on", {})) <= set(compose["services"]) - {name}
        check = service.get("healthcheck", {}).get("test", [])
        assert not check or check[0] == "CMD"


def test_the_gateway_in_front_of_lmdeploy_asks_where_it_listens():
    services = yaml.safe_load((FOLDER / "compose.gpu.yaml").read_text(encoding="utf-8"))["services"]
    command = services["lmdeploy"]["command"]
    port = command[command.index("--server-port") + 1]
    assert f"elysia=http://lmdeploy:{port}" in services["gateway"]["command"]
    assert f":{port}/health" in " ".join(services["lmdeploy"]["healthcheck"]["test"])
    version = next(
        line.partition("==")[2]
        for line in (ROOT / "requirements" / "lmdeploy.lock").read_text().splitlines()
        if line.startswith("lmdeploy==")
    )
    assert services["lmdeploy"]["image"].endswith(f":v{version}")


def test_the_image_copies_what_is_there_and_the_versions_of_the_locks():
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied and all((ROOT / path).exists() for path in copied)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    torch = next(word for word in " ".join(lines).split() if word.startswith("torch=="))
    assert f"TORCH ?= {torch}" in makefile
    entry = next(line for line in lines if line.startswith("ENTRYPOINT"))
    assert json.loads(entry.removeprefix("ENTRYPOINT ")) == ["elysia"]
