# The commands of this repository. `make reproduce` and `make test` need nothing but Python 3.11 or newer.
#
#   make env                         make .venv and install audfer into it (once; again after a version changes)
#   make reproduce [PROFILE=laptop]  run all notebooks and write figures/PROFILE and work/PROFILE/report.html
#   make appendices                  run the appendices A1 to A3 only
#   make verify                      compare what make reproduce gave with the committed tables and figures: a certificate
#   make all                         the same as make reproduce: 01 to 05 and the appendices
#   make test [JOBS=cores]           pytest, then the notebooks through nbval in the smoke profile; JOBS processes
#   make lab                         open the notebooks in JupyterLab
#   make bench                       run benchmarks/*.py, one dated record each
#   make clean                       remove generated work: work/ and caches (figures and .venv stay)
#   make distclean                   the same and .venv
#
# PROFILE is smoke, laptop, gpu, paper or a path to a .toml file; PYTHON names the interpreter that .venv is made from;
# VENV moves .venv; AUDFER_WORK moves the folder of generated work. Nothing outside this folder is ever deleted.

PROFILE ?= laptop
PYTHON ?=
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
# make splits names at blanks; the folder of the checkout itself may have any name
ifneq ($(words $(VENV)),1)
$(error VENV is '$(VENV)': expected a path without blanks)
endif
JOBS ?= $(or $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null),2)
# The tests keep their own folder, so that they never touch the user's records; work may be a link to where a folder "test" is his.
TEST_WORK := work/make-test
TEST_ENVIRONMENT = AUDFER_PROFILE=smoke AUDFER_WORK="$$PWD/$(TEST_WORK)" AUDFER_FIGURES="$$PWD/$(TEST_WORK)/figures" AUDFER_HEADLESS=1

INSTALL := $(PY) -m pip install --quiet --quiet --disable-pip-version-check --no-input --no-compile -c constraints.txt
# pip would compile the packages on one core; a file that is no Python (templates, other versions' syntax) is none to anybody
COMPILE = $(PY) -m compileall -q -q -j 0 -x '/tests/' "$(VENV)/lib" audfer || true

.PHONY: help env reproduce appendices pretrained verify all test lab bench clean distclean
.DEFAULT_GOAL := help

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	chosen=""; \
	for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then chosen="$$candidate"; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "audfer needs Python 3.11 or newer and found none (tried: $(or $(PYTHON),python3, python3.14 to python3.11, python));" >&2; \
	  echo "install one, or name it: make env PYTHON=/path/to/python3.11" >&2; exit 2; \
	fi; \
	if ! "$$chosen" -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "$$chosen cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; \
	fi; \
	echo "Making $(VENV) with $$("$$chosen" --version) and installing the pinned packages: 1 to 5 minutes, once ..."; \
	"$$chosen" -m venv $(VENV); \
	$(INSTALL) -e .; $(COMPILE); \
	touch $@; \
	echo "Done: $$($(PY) -c 'import torch; print("torch", torch.__version__)') in $(VENV)"

# what only the tests need
$(DEV_STAMP): $(STAMP)
	@echo "Adding the pinned packages of the tests, once ..."
	@$(INSTALL) -e '.[dev]' && { $(COMPILE); }
	@touch $@

reproduce: $(STAMP)
	@$(VENV)/bin/audfer reproduce --profile "$(PROFILE)" -n main

# the appendices have sizes of their own beside the laptop's
appendices: $(STAMP)
	@$(VENV)/bin/audfer reproduce --profile "$(if $(filter laptop,$(PROFILE)),appendices,$(PROFILE))" -n appendices

all: reproduce
	@$(MAKE) --no-print-directory appendices

# what ships trained (audfer/pretrained), again: about an hour
pretrained: $(STAMP)
	@$(VENV)/bin/audfer pretrained

verify: $(STAMP)
	@$(VENV)/bin/audfer verify --profile "$(PROFILE)"

test: $(DEV_STAMP)
	@rm -rf -- $(TEST_WORK)
	@$(PY) -m ruff check --quiet . && $(PY) -m ruff format --quiet --check .
	@echo "1 of 2: pytest, $(JOBS) processes"
	@$(TEST_ENVIRONMENT) OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) --dist worksteal
	@echo "2 of 2: notebooks in the smoke profile, two at a time"
	@$(MAKE) --no-print-directory --jobs=2 test-notebooks
	@echo "all tests passed"

# nbval, each notebook when those whose work it goes on from are through, as audfer reproduce runs them
CHECKS = $(patsubst %.ipynb,check-%,$(notdir $(wildcard notebooks/*.ipynb notebooks/appendices/*.ipynb)))
.PHONY: test-notebooks $(CHECKS)
test-notebooks: $(CHECKS)
check-02_knowledge_matrix: check-01_au_extraction
check-03_training: check-02_knowledge_matrix
check-04_strategies check-05_visualisations check-A2_keypoint_gcn check-A3_lock_and_check: check-03_training
$(CHECKS): check-%: $(DEV_STAMP)
	@$(TEST_ENVIRONMENT) AUDFER_PROGRESS=off $(PY) -m pytest -q -p no:cacheprovider --nbval-lax --nbval-current-env \
	  --nbval-cell-timeout=600 $(wildcard notebooks/$*.ipynb notebooks/appendices/$*.ipynb)

lab: $(STAMP)
	@$(PY) -m jupyter lab notebooks

bench: $(STAMP)
	@set -e; for file in benchmarks/*.py; do echo "$$file"; $(PY) "$$file"; done

# only names that are written out here, so that no variable and no blank in a path can lead elsewhere
clean:
	rm -rf -- work .pytest_cache .ruff_cache build audfer.egg-info
	find audfer tests notebooks benchmarks -depth \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf -- {} +

distclean: clean
	@if [ ! -e "$(VENV)" ]; then exit 0; fi; \
	place=$$(cd -P -- "$(VENV)" && pwd); \
	case "$$place" in \
	  "$$(pwd -P)"/?*) if [ ! -f "$$place/pyvenv.cfg" ]; then echo "$(VENV) is no virtual environment (no pyvenv.cfg in it): not deleted" >&2; exit 2; fi; \
	    echo "rm -rf -- $(VENV)"; rm -rf -- "$(VENV)" ;; \
	  *) echo "$(VENV) lies outside this folder: not deleted" >&2; exit 2 ;; \
	esac
