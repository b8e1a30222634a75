import json

from elysia.train.hooks.dataset_info_hook import coloured
from elysia.train.hooks.loss_curve_hook import draw, read_scalars


class Words:
    """Decodes ids as the letters they index."""

    def decode(self, ids, skip_special_tokens):
        assert not skip_special_tokens
        return "".join("abcdefgh"[i] for i in ids)


def test_learned_runs_are_green_and_context_is_plain():
    text = coloured([0, 1, 2, 3, 4], [-100, 1, 2, -100, 4], Words())
    assert text == "a\x1b[32mbc\x1b[0md\x1b[32me\x1b[0m"


def test_scalars_of_a_resumed_run_continue_and_half_a_line_is_passed_over(tmp_path):
    for name, rows in (
        (
            "20260101_000000",
            [{"loss": 3.0, "step": 1}, {"loss": 2.0, "step": 2}, {"heldout_loss": 5.0, "step": 0}],
        ),
        ("20260102_000000", [{"loss": 1.5, "step": 2}, {"loss": 1.0, "step": 3}]),
    ):
        folder = tmp_path / name / "vis_data"
        folder.mkdir(parents=True)
        (folder / "scalars.json").write_text("\n".join(map(json.dumps, rows)) + '\n{"loss": 9')
    trained, heldout = read_scalars(tmp_path)
    assert trained == {1: 3.0, 2: 1.5, 3: 1.0}
    assert heldout == {0: 5.0}


def test_the_curve_is_a_picture(tmp_path):
    draw({1: 3.0, 2: 2.0}, {}, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
