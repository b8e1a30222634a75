import os
import pickle
import resource
import shutil
import subprocess
import sys

import pytest
import torch

from elysia.core.errors import CheckpointError
from elysia.train import checkpoint


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "iter_3.pth"
    checkpoint.save({"state_dict": {"llm.a": torch.arange(3.0)}, "progress": {"step": 3}}, path)
    assert torch.equal(checkpoint.load_weights(path)["a"], torch.arange(3.0))
    assert os.listdir(tmp_path) == ["iter_3.pth"]


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    torch.save({"state_dict": Evil()}, tmp_path / "iter_1.pth")
    with pytest.raises(CheckpointError, match="not executed"):
        checkpoint.load(tmp_path / "iter_1.pth")
    (tmp_path / "iter_2.pth").write_bytes(pickle.dumps(Evil()))
    for read in (checkpoint.load, checkpoint.load_weights):
        with pytest.raises(CheckpointError):
            read(tmp_path / "iter_2.pth")
    with pytest.raises(CheckpointError, match="no weights"):
        checkpoint.load_weights(tmp_path / "iter_1.pth")
    assert not marker.exists()


def test_the_weights_of_an_xtuner_checkpoint_are_read_and_its_objects_passed_over(tmp_path):
    from mmengine.logging import HistoryBuffer

    path = tmp_path / "iter_5.pth"
    torch.save(
        {"state_dict": {"llm.w": torch.ones(2)}, "message_hub": {"x": HistoryBuffer([1.0], [1])}},
        path,
    )
    assert torch.equal(checkpoint.load_weights(path)["w"], torch.ones(2))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_a_sentence(tmp_path, share):
    path = tmp_path / "iter_1.pth"
    checkpoint.save({"state_dict": {"llm.a": torch.randn(1000)}}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="iter_1"):
        checkpoint.load(path)


def test_a_missing_checkpoint_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "iter_9.pth")


def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_half_of_the_new(tmp_path):
    checkpoint.save({"n": torch.ones(10)}, tmp_path / "iter_1.pth")
    script = f"""
import resource, signal, sys, torch
from pathlib import Path
from elysia.core.errors import CheckpointError
from elysia.train import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    checkpoint.save({{"n": torch.randn(1_000_000)}}, Path({str(tmp_path)!r}) / "iter_1.pth")
except CheckpointError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "was not written" in done.stdout and "disk is full" in done.stdout, done.stderr
    assert os.listdir(tmp_path) == ["iter_1.pth"]
    assert torch.equal(checkpoint.load(tmp_path / "iter_1.pth")["n"], torch.ones(10))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200_000


def test_the_last_checkpoint_is_found_in_the_folder_itself_also_after_it_was_copied(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    assert checkpoint.last_checkpoint(old) is None
    for step in (5, 10):
        checkpoint.save({"n": step}, old / f"iter_{step}.pth")
    assert checkpoint.last_checkpoint(old).name == "iter_10.pth"
    checkpoint.write_pointer(old / "iter_5.pth")
    assert checkpoint.last_checkpoint(old).name == "iter_5.pth"
    shutil.copytree(old, tmp_path / "new")
    assert checkpoint.last_checkpoint(tmp_path / "new") == tmp_path / "new" / "iter_5.pth"
    (tmp_path / "new" / "iter_5.pth").unlink()
    assert checkpoint.last_checkpoint(tmp_path / "new") == tmp_path / "new" / "iter_10.pth"


def test_only_the_newest_are_kept_by_number_and_not_by_name(tmp_path):
    for step in (2, 9, 10, 100):
        checkpoint.save({"n": step}, tmp_path / f"iter_{step}.pth")
    (tmp_path / "iter_50.pth").mkdir()
    checkpoint.prune(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == ["iter_100.pth", "iter_50.pth"]
    checkpoint.prune(tmp_path, 0)
    assert len(os.listdir(tmp_path)) == 2


def test_a_deepspeed_folder_is_read_from_its_consolidated_weights(tmp_path):
    folder = tmp_path / "iter_4.pth"
    folder.mkdir()
    checkpoint.save_weights({"llm.a": torch.ones(3)}, folder / checkpoint.WEIGHTS)
    assert torch.equal(checkpoint.load_weights(folder)["a"], torch.ones(3))


def test_xtuners_own_deepspeed_folder_is_read(tmp_path):
    folder = tmp_path / "iter_4.pth"
    folder.mkdir()
    torch.save({"module": {"llm.a": torch.ones(3)}}, folder / "mp_rank_00_model_states.pt")
    assert torch.equal(checkpoint.load_weights(folder)["a"], torch.ones(3))


def test_a_folder_that_is_no_checkpoint_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load_weights(tmp_path)
