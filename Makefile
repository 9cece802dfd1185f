# Both commands do everything from a bare clone: Python >= 3.10, a C++ compiler, and a package index are enough.
PYTHON ?= python3
VENV ?= .venv
# the newest torch for a GPU, else one known to work; whether that is a CPU-only build is the package index's choice
TORCH ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo torch || echo torch==2.13.0)
BIN := $(VENV)/bin
SOURCES := $(shell find csrc cmake build_backend CMakeLists.txt pyproject.toml cdkd_ext -type f -not -name '*.pyc' 2>/dev/null)
# what runs an exported network in a browser, of npm
WEB_RUNTIME := onnxruntime-web@1.30.0
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test test-long web-runtime bench gpu docs fuzz lint clean

demo: $(VENV)/.demo
	$(BIN)/cdkd demo --output runs/demo

# the web page is tested where there are npm, something to get its runtime from, and Chromium
test: $(VENV)/.test
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory web-runtime || echo "no $(WEB_RUNTIME): the web page is not tested"
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# trainings, builds, sanitizers, planted bugs, machine code, benchmarks and fuzzing
test-long: $(VENV)/.test
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --long -m long

web-runtime: build/web/$(WEB_RUNTIME)

bench: $(VENV)/.demo
	$(BIN)/python -m bench --all --seconds 0.5 --json runs/bench.json
	$(BIN)/python -m bench.harness.report runs/bench.json --output docs/performance.md

# with the environment that is there, which a machine without a network cannot add to
gpu:
	$(PYTHON) -m bench.gpu

docs: $(VENV)/.test
	$(BIN)/mkdocs build --strict

# random calls under sanitizers and damaged files, hours of them; bugs that are planted first have to be found
fuzz: $(VENV)/.test
	mkdir -p runs
	$(BIN)/python python_tests/fuzz --json runs/fuzz.json

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find bench csrc -name '*.[ch]' -o -name '*.cpp' -o -name '*.cu')

build/web/$(WEB_RUNTIME):
	rm -rf build/web
	mkdir -p build/web
	cd build/web && npm pack --silent --fetch-retries=0 $(WEB_RUNTIME)
	cd build/web && tar xzf onnxruntime-web-*.tgz && rm onnxruntime-web-*.tgz
	touch $@

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)" numpy
	touch $@

$(VENV)/.demo: $(VENV)/.torch $(SOURCES)
	$(BIN)/pip install --quiet ".[train,export]"
	touch $@

# with the torchvision that it asks for, onnx2torch would bring another torch
$(VENV)/.test: $(VENV)/.torch $(SOURCES)
	$(BIN)/pip install --quiet ".[train,dev]"
	$(BIN)/pip install --quiet --no-deps onnx2torch
	touch $@

clean:
	rm -rf $(VENV) build runs site
