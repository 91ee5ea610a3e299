# Two commands do all the set-up: `make demo` and `make test`. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUT ?= out/demo

PYTEST ?=

.PHONY: demo test lint tour docs wheel install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[plots]'
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[plots,test]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/jaxsynth scene --scenes=mountain,iceberg --seeds=4 --out=$(DEMO_OUT) --overwrite

test: $(VENV)/.tested
	$(BIN)/ruff check .
	-$(BIN)/python tests/fetch_originals.py .cache
	$(BIN)/python -m pytest -n 2 --dist=loadfile --no-loadscope-reorder $(PYTEST)

$(VENV)/.developed: $(VENV)/.tested
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

wheel: $(VENV)/.installed
	PYTHON=$(abspath $(BIN)/python) .ci/wheel

# The tour's cells with the shipped networks, a few steps each; its time is mostly the compiler's.
tour: $(VENV)/.installed
	sed 's/^STEPS, SEEDS = .*/STEPS, SEEDS = 3, 2/' examples/tour.py | \
		JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/python -

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) out build *.egg-info
