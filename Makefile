# Two commands do everything on a fresh machine: `make demo` and `make test`.
# PYTHON chooses the interpreter (3.11 or 3.12), TORCH what torch is installed from, e.g. on a CPU-only Linux
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SEED ?= 0
# How many processes share the tests; each takes about 1 GB and one core.
WORKERS ?= 2

.PHONY: demo test coverage check lint ruff mypy contracts names bench bench-serve bench-train bench-voice web lock lmdeploy clean

demo: $(VENV)/.train
	$(BIN)/elysia demo --seed $(SEED)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 15 -m "not slow"

test: $(VENV)/.dev
	$(PYTEST) $(ARGS)

# The lines that no test runs. Counting them takes nearly as long as the tests themselves, so it stands apart.
coverage: $(VENV)/.dev
	$(PYTEST) --cov --cov-report=term-missing:skip-covered $(ARGS)

check: lint test

# `make -j2 -O lint` runs them beside each other; mypy takes the longest, so it begins.
lint: mypy ruff contracts names

mypy: $(VENV)/.dev
	$(BIN)/mypy

ruff: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

names: $(VENV)/.dev
	$(BIN)/python scripts/check_names.py elysia tests benchmarks scripts

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py

bench-serve: $(VENV)/.dev
	$(BIN)/python benchmarks/serve.py work_dirs/bench-serve $(ARGS)

# The race with TRL and XTuner 0.2.0, each in an environment of its own on top of this one.
bench-train: .venv-trl/.made .venv-xtuner/.made
	$(BIN)/python benchmarks/trainers.py --peer-python .venv-trl/bin/python --xtuner-python .venv-xtuner/bin/python $(ARGS)

.venv-trl/.made .venv-xtuner/.made: .venv-%/.made: $(VENV)/.dev requirements/%.lock
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -c 'import site, sys; open(site.getsitepackages()[0] + "/under.pth", "w").write(sys.argv[1])' \
		"$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"
	.venv-$*/bin/python -m pip install --disable-pip-version-check --no-deps -r requirements/$*.lock
	@touch $@

# LMDeploy wants other versions than training does, and a GPU to serve: an environment of its own.
lmdeploy:
	$(PYTHON) -m venv .venv-lmdeploy
	.venv-lmdeploy/bin/python -m pip install --disable-pip-version-check -r requirements/lmdeploy.lock
bench-voice: $(VENV)/.voice
	$(BIN)/python benchmarks/voice.py

# The page at http://127.0.0.1:6006, over the newest model of work_dirs or ELYSIA_MODEL.
web: $(VENV)/.chat
	$(BIN)/streamlit run web_demo/app.py

lock: $(VENV)/.dev
	$(BIN)/python scripts/lock.py

# The environment is made in stages, each with a stamp, so that a second run starts at once.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if v in ((3, 11), (3, 12)) else f"Python 3.11 or 3.12 is needed, this is {v[0]}.{v[1]}. Set PYTHON=python3.11.")'
	@echo "[1/3] A virtual environment in $(VENV), and torch (the largest download)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --progress-bar on $(TORCH)
	@touch $@

$(VENV)/.train: $(VENV)/.torch requirements.txt pyproject.toml
	@echo "[2/3] Everything else, from the lock (about a minute)"
	$(PIP) install --no-deps -r requirements.txt
	@echo "[3/3] Elysia itself: the commands elysia and xtuner"
	$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.serve: $(VENV)/.train requirements/serve.lock
	$(PIP) install --no-deps -r requirements/serve.lock
	@touch $@

$(VENV)/.voice: $(VENV)/.train requirements/voice.lock
	$(PIP) install --no-deps -r requirements/voice.lock
	@touch $@

$(VENV)/.chat: $(VENV)/.serve $(VENV)/.voice requirements/chat.lock requirements/web.lock
	$(PIP) install --no-deps -r requirements/chat.lock -r requirements/web.lock
	@touch $@

$(VENV)/.dev: $(VENV)/.chat requirements/dev.lock requirements/data.lock
	$(PIP) install --no-deps -r requirements/dev.lock -r requirements/data.lock
	@touch $@

clean:
	rm -rf $(VENV) .venv-trl .venv-xtuner work_dirs build *.egg-info
