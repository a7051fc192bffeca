# Every target sets up what it needs: the first run makes .venv, later runs start at once.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := build/demo
# What is imported is compiled once: without that every process would compile torch, Ray and MLflow, 10 s each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow check docs crash load bench gpu fuzz image picture

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1    \2/p' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make the virtual environment .venv

$(STAMP): pyproject.toml constraints.txt tools/make_venv.sh tools/uv_install.py
	@bash tools/make_venv.sh $(VENV)
	@touch $@

demo: $(STAMP)  ## restore a small archive of real photographs and show the result
	@$(BIN)/python -m jobs.demo --folder $(DEMO) --photos-only
	@rm -rf $(DEMO)/restored
	$(BIN)/python -m jobs.restore --input $(DEMO)/photos --output $(DEMO)/restored --unit-images 3 --max-error-rate 0.25

test: $(STAMP)  ## run the tests
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow"

slow: $(STAMP)  ## run the tests that are slow by nature: kills, pauses, load, several workers
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile -m slow $(SLOW)

check: $(STAMP)  ## lint, formatting, types, and the floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache

docs: $(STAMP)  ## write the floor table into docs/architecture.md
	@$(BIN)/python tools/floor_table.py

fuzz: $(STAMP)  ## feed the readers broken files for FUZZ_SECONDS (120)
	@PYTHONPATH=.:tests $(BIN)/python -m hostile.fuzz

crash: $(STAMP)  ## kill runs at every single step and compare what they leave with an undisturbed one
	@$(BIN)/python -m pytest tests/crash tests/crash/on_a_cluster.py tests/crash/each_point.py

load: $(STAMP)  ## put the pipeline under load: a million images, four nodes, a slow shard
	@PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m load

picture: $(STAMP)  ## make the pictures of README and docs/review.md again
	@$(MAKE) demo
	@mkdir -p docs/pictures
	@REVIEW_PICTURES=docs/pictures $(BIN)/python -m pytest -q -n 0 tests/jobs/test_review.py -k person
	@$(BIN)/python -c "from PIL import Image; Image.open('$(DEMO)/restored/report/contact_sheet.png').convert('RGB').save('docs/pictures/demo.jpg', quality=88)"

image: $(STAMP)  ## carry out the steps of both images without a container engine, and resolve their packages
	@$(BIN)/python tools/try_image.py --file cluster/mlflow.Dockerfile
	@$(BIN)/python tools/try_image.py --file cluster/Dockerfile

bench: $(STAMP)  ## measure faces per second on this machine
	@$(BIN)/python -m jobs.bench --pipeline --faces 64

gpu: $(STAMP)  ## check and measure the engine on this machine's GPU, in GPU_SECONDS (300)
	@$(BIN)/python tools/gpu_check.py --seconds $(or $(GPU_SECONDS),300)
