# Everything a developer does, from a fresh clone: `make demo`, `make test`. Nothing is installed outside .venv.

PYTHON ?= python3
PYTEST_ARGS ?=
TENSORRT_INCLUDE_DIR ?=
ONNXRUNTIME_INCLUDE_DIR ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One thread for each test process: processes that all want every core are slower than one.
TEST_ENV := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-batch test-native test-engines test-load fuzz lint lint-native format types ptx plugins bench wheel clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with everything (other targets do it by themselves)

$(READY): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	@touch $@

demo: $(READY)  ## export PWC-Net-GOCor, verify it, estimate the flow of a photo pair; pictures in demo-out/
	$(BIN)/python examples/demo/demo.py

test: $(READY)  ## the fast tests
	$(TEST_ENV) $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile -m "not slow" $(PYTEST_ARGS)

test-slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

test-batch: $(READY)  ## batches that are killed 50 times, and batches on a Ray cluster (installs Ray): ten minutes
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[ray]"
	$(TEST_ENV) $(BIN)/python -m pytest -m slow tests/runtime/batch $(PYTEST_ARGS)

test-load: $(READY)  ## ten thousand estimates in a row and by eight threads, in every library; a quarter of an hour
	$(TEST_ENV) $(BIN)/python -m pytest -m slow -k many_estimates tests/runtime/test_load.py \
		tests/runtime/test_cpp_library.py $(PYTEST_ARGS)

FUZZ_ARGS ?=

fuzz: $(READY)  ## damaged files for everything that reads one: a hundred thousand, or a minute; half an hour
	$(TEST_ENV) PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ_ARGS)
	$(TEST_ENV) $(BIN)/python -m pytest -m slow -k sanitizers tests/runtime/test_cpp_library.py

test-engines: $(READY)  ## every network at real sizes through NVIDIA's parser and builder: seconds, sizes
	$(TEST_ENV) $(BIN)/python -m pytest -m slow tests/export/test_engine_networks.py $(PYTEST_ARGS)

test-native: $(READY) plugins  ## the tests of the plugin library and of libgocor; a skipped one has failed
	PYTHONPATH=tests TENSORRT_INCLUDE_DIR="$(TENSORRT_INCLUDE_DIR)" \
		ONNXRUNTIME_INCLUDE_DIR="$(ONNXRUNTIME_INCLUDE_DIR)" $(TEST_ENV) $(BIN)/python -m pytest \
		-p nothing_skipped -k "not many_estimates" tests/plugins/test_plugin_library.py \
		tests/plugins/test_tensorrt_quick.py tests/runtime/test_cpp_library.py tests/runtime/test_cpp_tensorrt.py \
		$(PYTEST_ARGS)

lint: $(READY)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

SITE_PACKAGES = $(wildcard $(CURDIR)/$(VENV)/lib/python3.*/site-packages)
OPENVINO_CMAKE = $(SITE_PACKAGES)/openvino/cmake
ONNXRUNTIME_LIBRARY = $(firstword $(wildcard $(SITE_PACKAGES)/onnxruntime/capi/libonnxruntime.so.*))

lint-native: $(READY)  ## clang-tidy, for the C++ of the TensorRT plugin library and of libgocor
	$(CMAKE) -S tests/plugins/native -B build/native
	$(BIN)/clang-tidy -p build/native --quiet plugins/*/tensorrt_plugin.cpp tests/plugins/native/cpu_driver.cpp \
		tests/plugins/native/plugin_harness.cpp plugins/native/driver_launch.cpp plugins/native/tensorrt_library.cpp
	$(CMAKE) -S tests/runtime/cpp -B build/native-cpp -DOpenVINO_DIR="$(OPENVINO_CMAKE)" \
		$(if $(ONNXRUNTIME_INCLUDE_DIR),"-DGOCOR_BACKENDS=openvino;onnxruntime" \
		-DONNXRUNTIME_INCLUDE_DIR="$(abspath $(ONNXRUNTIME_INCLUDE_DIR))" -DONNXRUNTIME_LIBRARY="$(ONNXRUNTIME_LIBRARY)")
	$(BIN)/clang-tidy -p build/native-cpp --quiet --header-filter="runtime/cpp/.*" \
		$(addprefix tests/runtime/cpp/,harness.cpp readers.cpp stress.cpp \
		$(if $(TENSORRT_INCLUDE_DIR),gpu_harness.cpp fake_gpu/fake_cuda.cpp)) \
		examples/cpp/estimate.cpp examples/cpp/files.cpp $(addprefix runtime/cpp/src/,error.cpp gocor.cpp json.cpp \
		manifest.cpp metadata.cpp onnx_file.cpp pipeline.cpp reading.cpp resample.cpp sha256.cpp spec.cpp \
		openvino_backend.cpp $(if $(ONNXRUNTIME_INCLUDE_DIR),onnxruntime_backend.cpp) \
		$(if $(TENSORRT_INCLUDE_DIR),tensorrt_backend.cpp))

format: $(READY)  ## let ruff put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# mypy cannot see through an editable install whose folders have other names than the package.
types: $(READY)  ## mypy, on an installed copy, and the benchmarks
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --target build/typed .
	MYPYPATH=build/typed $(BIN)/mypy -p gocor
	MYPYPATH=build/typed:benchmarks $(BIN)/mypy benchmarks/*.py

# After a change of a kernel: engines and the plugin library get the PTX that is in the repository.
ptx: $(READY)  ## compile the CUDA kernels to PTX, into plugins/ptx/
	$(BIN)/python -m gocor.plugins.ptx --write

# Headers: include/ of TensorRT's archive or of github.com/NVIDIA/TensorRT. CUDA's are a toolkit's or pip's.
CMAKE = $(BIN)/cmake -DNVIDIA_WHEELS="$(wildcard $(CURDIR)/$(VENV)/lib/python3.*/site-packages/nvidia)" \
	$(if $(TENSORRT_INCLUDE_DIR),-DTENSORRT_INCLUDE_DIR="$(abspath $(TENSORRT_INCLUDE_DIR))")

plugins: $(READY)  ## build/plugins/libgocor_plugins.so; TENSORRT_INCLUDE_DIR=… says where TensorRT's headers are
	$(CMAKE) -S plugins -B build/plugins
	$(BIN)/cmake --build build/plugins

BENCH_ARGS ?= --models build/bench

bench: $(READY)  ## networks and operators on this CPU in every library; three quarters of an hour, or minutes with BENCH_ARGS=--quick
	$(BIN)/python benchmarks/cpu.py $(BENCH_ARGS)

# Left-overs in build/ would end up in the wheel.
wheel: $(READY)  ## source archive and wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build --quiet

clean:  ## remove what was built; .venv stays
	rm -rf build dist demo-out *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
