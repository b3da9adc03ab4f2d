# Two commands for a fresh machine: `make demo` and `make test`. Each creates its own virtual environment from the pins in
# constraints.txt, and updates it only when these or the dependencies change.

PYTHON ?= python3
ARGS ?=

# The environments have their own ROS 2; a sourced one would mix with it.
unexport PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH RMW_IMPLEMENTATION ROS_DISTRO _ROS_WHEELS_BOOTSTRAP_COMPLETE
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test fuzz soak lint format clean

demo: .venv-demo/.ready  ## ARGS='--help' lists the options
	@.venv-demo/bin/superpoint demo $(ARGS)

test: .venv-test/.ready  ## ARGS='test/test_matching.py -k ratio' runs some
	.venv-test/bin/python -m pytest -q $(ARGS)

fuzz: .venv-test/.ready  ## ARGS='images --seconds 600 --seed 1' attacks one target for longer; --help lists them
	.venv-test/bin/python -m test.fuzz $(ARGS)

soak: .venv-test/.ready  ## ARGS='bag --minutes 600' plays a bag in a loop, for longer
	.venv-test/bin/python -m test.fuzz.soak $(ARGS)

lint: .venv-test/.ready
	.venv-test/bin/ruff check
	.venv-test/bin/ruff format --check
	.venv-test/bin/mypy

format: .venv-test/.ready
	.venv-test/bin/ruff check --fix
	.venv-test/bin/ruff format

clean:
	rm -rf .venv-demo .venv-test build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv-demo/.ready: EXTRAS = ros,cpu,demo
.venv-test/.ready: EXTRAS = test

.venv-%/.ready: setup.py package.xml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10)' 2>/dev/null || \
		{ echo 'superpoint_ros needs Python 3.10 or later; choose one with: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo 'Python cannot create virtual environments; on Debian and Ubuntu: sudo apt install python3-venv' >&2; exit 1; }
	@echo 'Installing into $(@D): some minutes the first time'
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install -qq -c constraints.txt setuptools
	@$(@D)/bin/pip install -qq -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@
