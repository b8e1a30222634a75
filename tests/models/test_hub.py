import socket
import sys
import types
from pathlib import Path

import pytest

from elysia.core.errors import ModelError
from elysia.models import hub

NAME = "internlm/internlm2-chat-1_8b"


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert hub.resolve_model(tmp_path) == tmp_path
    assert hub.resolve_model(str(tmp_path), hub="modelscope") == tmp_path


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    assert hub.resolve_model("~/models") == tmp_path / "models"


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="is a file, but a model is a folder"):
        hub.resolve_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "path", ["./nowhere/model", "/no/such/folder", "one-word", "a/b/c", "../x/y"]
)
def test_a_missing_path_is_refused_without_asking_a_hub(path: str) -> None:
    with pytest.raises(ModelError, match="There is no model folder"):
        hub.resolve_model(path)


def test_an_unknown_hub_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Did you mean 'modelscope'"):
        hub.resolve_model(tmp_path, hub="modelscop")


def test_offline_a_missing_model_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=f"{NAME} is not on this machine.*HF_HUB_OFFLINE") as error:
        hub.resolve_model(NAME)
    assert "\n" not in str(error.value)


class FakeHub:
    """The Hugging Face client's two calls, with answers of our own."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, answer: Exception | None, folder: Path
    ) -> None:
        import huggingface_hub

        self.calls: list[dict[str, object]] = []
        self.answer, self.folder = answer, folder
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)

    def model_info(self, name: str, timeout: float) -> object:
        assert 0 < timeout < 60
        if self.answer:
            raise self.answer
        return types.SimpleNamespace(sha="c0ffee")

    def snapshot_download(self, name: str, **options: object) -> str:
        self.calls.append(options)
        if options.get("local_files_only"):
            raise FileNotFoundError(name)
        return str(self.folder)


def test_a_model_is_fetched_once_the_hub_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_hub = FakeHub(monkeypatch, None, tmp_path)
    assert hub.resolve_model(NAME) == tmp_path
    assert fake_hub.calls[-1]["revision"] == "c0ffee"
    assert "*.bin" not in hub.DOWNLOAD_PATTERNS


def test_a_plan_asks_for_no_weights_and_a_training_asks_for_those_that_it_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_hub = FakeHub(monkeypatch, None, tmp_path)
    hub.resolve_model(NAME, weights=False)
    patterns = fake_hub.calls[-1]["allow_patterns"]
    assert "*.json" in patterns and "*.model" in patterns and "*.safetensors" not in patterns

    def download(name: str, **options: object) -> str:  # the cache now holds what the plan fetched
        fake_hub.calls.append(options)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fake_hub.calls.clear()
    hub.resolve_model(NAME, weights=False)
    assert [call.get("revision") for call in fake_hub.calls] == [None]
    hub.resolve_model(NAME)
    assert fake_hub.calls[-1]["revision"] == "c0ffee"
    assert "*.safetensors" in fake_hub.calls[-1]["allow_patterns"]
    (tmp_path / "model.safetensors").touch()
    hub.resolve_model(NAME)
    assert "revision" not in fake_hub.calls[-1]


def _refusal(kind: str) -> Exception:
    from huggingface_hub import errors

    response = types.SimpleNamespace(headers={}, request=None, status_code=404)
    if kind == "network":
        cause = ConnectionError("Name or service not known")
        wrapped = RuntimeError("long story\nwith lines")
        wrapped.__cause__ = cause
        return wrapped
    name = {"missing": "RepositoryNotFoundError", "gated": "GatedRepoError"}[kind]
    error: Exception = getattr(errors, name)("no", response=response)
    return error


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such model on the Hugging Face Hub"),
        ("gated", "asks for a licence"),
        ("network", "could not be fetched from Hugging Face .*Name or service not known"),
    ],
)
def test_each_way_of_not_getting_a_model_has_its_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, words: str
) -> None:
    FakeHub(monkeypatch, _refusal(kind), tmp_path)
    with pytest.raises(ModelError, match=words) as error:
        hub.resolve_model(NAME)
    assert "\n" not in str(error.value)


def test_a_network_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HUB_TIMEOUT", 0.5)
    endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint=endpoint))
    with silent, pytest.raises(ModelError, match="could not be fetched"):
        hub.resolve_model(NAME)


def test_modelscope_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(ModelError, match="pip install modelscope"):
        hub.resolve_model(NAME, hub="modelscope")


def test_modelscope_is_asked_when_it_is_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = types.SimpleNamespace(snapshot_download=lambda name: str(tmp_path / name))
    monkeypatch.setitem(sys.modules, "modelscope", package)
    assert hub.resolve_model(NAME, hub="modelscope") == tmp_path / NAME


def test_modelscopes_failure_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> str:
        raise ValueError(f"{name} does not exist")

    monkeypatch.setitem(sys.modules, "modelscope", types.SimpleNamespace(snapshot_download=fail))
    with pytest.raises(ModelError, match="could not be fetched from ModelScope"):
        hub.resolve_model(NAME, hub="modelscope")
