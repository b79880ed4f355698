# One command each. PYTHON chooses the interpreter, ARGS is handed on:
#   make run PORT=8001
#   make chat ARGS="--user ann"
#   make cluster ARGS="--web 4 --workers 4"
#   make test PYTHON=python3.12 ARGS="-k protocol -x"
PYTHON ?= python3
ARGS ?=

.PHONY: run chat cluster test drills check bench screenshots lock audit sbom

run chat cluster test drills check bench screenshots lock audit sbom:
	@$(PYTHON) scripts/bootstrap.py $@ $(ARGS)
