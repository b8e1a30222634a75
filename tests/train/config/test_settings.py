import pytest

from elysia.core.errors import ConfigError
from elysia.core.paths import list_bundled_configs
from elysia.train.config.settings import Settings, build_settings, load_settings

LEAST = {"pretrained_model_name_or_path": "m", "data_path": "d.json"}


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


BASE = "pretrained_model_name_or_path = 'm'\ndata_path = 'd.json'\nlr = 2e-4\n"


@pytest.mark.parametrize("name", sorted(list_bundled_configs()))
def test_every_bundled_config_loads_and_opens_with_the_command_that_runs_it(name):
    path = list_bundled_configs()[name]
    assert isinstance(load_settings(path), Settings)
    first = path.read_text().splitlines()[0]
    assert first.startswith("#") and f"train configs/{name}.py" in first


def test_a_childs_value_is_the_one_that_counts(tmp_path):
    write(tmp_path, "base.py", BASE)
    child = write(tmp_path, "child.py", "_base_ = ['./base.py']\nlr = 1e-5\n")
    assert load_settings(child).lr == 1e-5


def test_cfg_options_come_last(tmp_path):
    config = write(tmp_path, "c.py", BASE)
    assert load_settings(config, {"lr": 3e-4, "max_epochs": 7}).max_epochs == 7
    assert load_settings(config, {"lr": 3e-4}).lr == 3e-4


def test_a_misspelt_name_is_refused_with_the_nearest(tmp_path):
    config = write(tmp_path, "c.py", BASE + "max_lenght = 5\n")
    with pytest.raises(ConfigError, match=r"c\.py.*'max_lenght'.*Did you mean 'max_length'"):
        load_settings(config)


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("max_epochs", "three", "int"),
        ("max_epochs", True, "int"),
        ("lr", "fast", "float"),
        ("method", "qlra", "one of 'qlora', 'lora', 'full'"),
        ("betas", (0.9,), "tuple"),
        ("evaluation_inputs", [1], "list"),
    ],
)
def test_a_wrong_type_is_told_with_name_value_and_what_was_wanted(name, value, expected):
    with pytest.raises(ConfigError) as caught:
        build_settings({**LEAST, name: value}, "my.py")
    assert "my.py" in str(caught.value) and name in str(caught.value)
    assert expected in str(caught.value) and repr(value) in str(caught.value)


def test_a_number_written_as_text_on_a_command_line_is_a_number():
    assert build_settings({**LEAST, "lr": "1e-4"}, "c").lr == 1e-4
    assert build_settings({**LEAST, "max_norm": 1}, "c").max_norm == 1.0


@pytest.mark.parametrize(
    "name, value", [("lr", 0.0), ("warmup_ratio", 1.5), ("accumulative_counts", 0)]
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        build_settings({**LEAST, name: value}, "c")


def test_a_config_without_model_or_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="data_path"):
        load_settings(write(tmp_path, "c.py", "pretrained_model_name_or_path = 'm'\n"))


def test_a_config_that_is_not_python_names_its_line(tmp_path):
    with pytest.raises(ConfigError, match="line 2"):
        load_settings(write(tmp_path, "c.py", "lr = 1\nlr lr\n"))


def test_a_config_that_raises_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="does not run"):
        load_settings(write(tmp_path, "c.py", "lr = 1 / 0\n"))


def test_a_missing_base_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nosuch\.py"):
        load_settings(write(tmp_path, "c.py", "_base_ = ['./nosuch.py']\n"))


def test_a_missing_config_suggests_the_nearest_bundled_one():
    with pytest.raises(ConfigError, match="Did you mean 'elysia_qlora'"):
        load_settings("elysia_qlra")


def test_an_unknown_template_is_refused(tmp_path):
    with pytest.raises(Exception, match="internlm2_chat"):
        load_settings(write(tmp_path, "c.py", BASE + "prompt_template = 'internlm2_chatt'\n"))


def test_data_paths_become_sources():
    sources = build_settings({**LEAST, "dataset_format": "alpaca"}, "c").sources
    assert sources == [{"path": "d.json", "format": "alpaca", "repeat": 1, "limit": None}]
    several = {**LEAST, "data_path": ["a.json", {"path": "b.json", "repeat": 2}]}
    assert [s["repeat"] for s in build_settings(several, "c").sources] == [1, 2]
    with pytest.raises(ConfigError, match="repeat"):
        build_settings({**LEAST, "data_path": [{"path": "b.json", "repaet": 2}]}, "c")


def test_the_hash_follows_the_values_and_not_the_file(tmp_path):
    first = load_settings(write(tmp_path, "a.py", BASE))
    assert first.sha256() == load_settings(write(tmp_path, "b.py", "# x\n" + BASE)).sha256()
    assert first.sha256() != load_settings(write(tmp_path, "c.py", BASE + "seed = 1\n")).sha256()


def test_an_expanded_config_can_be_read_again(tmp_path):
    dumped = write(
        tmp_path,
        "d.py",
        f"settings = {LEAST | {'lr': 0.5, 'optimizer': 'torch.optim.SGD'}!r}\nmodel = dict()\ntrain_dataloader = dict()\n",
    )
    assert load_settings(dumped).lr == 0.5
    assert load_settings(dumped).optimizer == "torch.optim.SGD"


def test_an_xtuner_config_without_its_parts_is_told_what_it_lacks(tmp_path):
    with pytest.raises(ConfigError, match="cannot be trained here: it has no optim_wrapper"):
        load_settings(write(tmp_path, "x.py", "model = dict()\ntrain_dataloader = dict()\n"))


@pytest.mark.parametrize("name", ["tokens", "moss_sft", "/a/own.py:mapped", "pretrain"])
def test_replies_may_be_of_any_format_but_pairs(name):
    source = {"path": "d.json", "format": name, "repeat": 0.5}
    assert build_settings(LEAST | {"data_path": [source]}, "c").sources[0]["format"] == name
