# Each target first makes .venv from a Python >= 3.11 and, where it is needed, finds or builds
# livekit-server (once, in minutes; kept in your cache folder).

PYTHON = .venv/bin/python
# One thread for numpy's small matrices: its threads spin on the cores that the tests need.
export OPENBLAS_NUM_THREADS = 1

.PHONY: help demo test test-page bench bench-speech bench-ear chaos check docs lint types format
.PHONY: coverage clean image matrix provision release setup

help:
	@echo "make demo    an avatar on this machine, in a page to talk to it and to break it; no account needed"
	@echo "HEADLESS=1 make demo  a short call without a page: report and MP4"
	@echo "make test    all tests, on a real livekit-server"
	@echo "make bench   latency, skew and CPU beside the official plugin: figures, in about 45 minutes"
	@echo "make bench-speech  latency, barge-in and failover of the voice: figures, in about 20 minutes"
	@echo "make bench-ear  how well the sink hears whether an avatar says what it was told; no server needed"
	@echo "make chaos   ten minutes in which everything goes wrong, and what must hold all the same"
	@echo "make test-page  the demo's page and front ends of others in Chromium (Debian, Ubuntu: apt install chromium)"
	@echo "make check   style, types and the quick tests that need no server; under a minute"
	@echo "make lint    style, layers of imports, types; make types: the types alone"
	@echo "make format  put the style right, where ruff can"
	@echo "make coverage  all tests, and the branch coverage of the package's core without a server and with"
	@echo "make matrix  the tests on every Python, livekit and lowest version that is declared; two hours"
	@echo "make image   the image of examples/cloud, built, and a call held in it; needs docker, podman or buildah"
	@echo "make docs    the pages and the API reference as a site, in site/; every link is checked"
	@echo "make release wheel and sdist, checked, installed and tried in fresh environments; uploads nothing"
	@echo "make clean   remove what tests, targets and tools left; .venv and the LiveKit server stay"

demo: provision
	@$(PYTHON) -m demo

test: provision
	@$(PYTHON) tools/run_tests.py

# matplotlib for the plots, only here.
bench: provision
	@$(PYTHON) -c "import matplotlib" 2>/dev/null || \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	@$(PYTHON) -m bench $(ARGS)

bench-speech: provision
	@$(PYTHON) -m bench.speech $(ARGS)

bench-ear: setup
	@$(PYTHON) -m bench.ear $(ARGS)

# The demo's page, and front ends of others, in a real Chromium: on your machine, never in CI.
test-page: provision
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable ".[browser]"
	@$(PYTHON) -m pytest -m browser $(ARGS)

chaos: provision
	@$(PYTHON) -m bench.chaos $(ARGS)

check: lint
	@$(PYTHON) -m pytest -m "not server and not slow" -n auto

release: setup
	@$(PYTHON) tools/release.py $(ARGS)

image: provision
	@$(PYTHON) tools/try_image.py $(ARGS)

# Makes its own environments, in your cache folder; what passed is not run again.
matrix: provision
	@$(PYTHON) tools/matrix.py $(ARGS)

docs: setup
	@$(PYTHON) tools/docs_site.py site
	@echo "site/index.html; to look at it: $(PYTHON) -m http.server --directory site"

lint: setup
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@.venv/bin/lint-imports --no-cache --no-logo
	@$(PYTHON) -m mypy

types: setup
	@$(PYTHON) -m mypy

format: setup
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

coverage: provision
	@$(PYTHON) tools/run_tests.py --coverage

clean:
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* \
	  .site site bench-out chaos-out demo-out build dist *.egg-info
	@find . -name .venv -prune -o -name node_modules -prune -o -name __pycache__ -type d \
	  -exec rm -rf {} +

provision: setup
	@$(PYTHON) -m livekit_plugins_runway.testing.livekit_server --provision

# Names are tried by running them: one may be on PATH and still not work.
setup:
	@for python in .venv/bin/python python3.13 python3.12 python3.11 python3; do \
	  if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then \
	    exec $$python tools/set_up.py; \
	  fi; \
	done; \
	echo "No Python 3.11 or later with its venv module was found." >&2; \
	echo "Debian, Ubuntu: apt install python3 python3-venv. macOS: brew install python@3.13." >&2; \
	exit 1
