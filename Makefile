# The front door: every target is one or two commands that can be typed by hand too.
JOBS ?= $(shell nproc)
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/neurogrid
VENV := $(CACHE)/venv
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: help deps build run download test test-long bench bench-peers gpu-kit clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

deps:
	@deploy/install-deps

build: deps ## programs in build/bin/
	@cmake --preset release >build-configure.log 2>&1 || { cat build-configure.log; exit 1; }
	@rm -f build-configure.log
	@cmake --build --preset release -j $(JOBS) --target neurogrid-coordinator neurogrid-worker

run: build ## serves SmolLM2-135M-Instruct, or MODEL=..., by a coordinator and two workers on this machine
	@deploy/run-local

download: build ## brings REPO=ORG/NAME, ORG/NAME@REVISION or ORG/NAME:FILE from the hub into the cache
	@[ -n "$(REPO)" ] || { echo "make download: name a model: make download REPO=ORG/NAME" >&2; exit 1; }
	@build/bin/neurogrid-coordinator download "$(REPO)"

test: deps ## builds everything and runs every test
	@deploy/run-tests

test-long: deps ## the same with long sweeps and the sanitizer builds of the servers
	@deploy/run-tests --long

bench: build ## speed of the default model and of a synthetic 1B model
	@build/bin/neurogrid-coordinator bench --model "$$(deploy/fetch-default-model)"
	@build/bin/neurogrid-coordinator bench --synthetic llama-1b

gpu-kit: deps ## build/gpu-kit.tar.xz: GPU tests and benchmark for a machine with a GPU's driver alone
	@cmake --preset release -DNG_CUDA=ON -UNG_CUDA_ARCHS >build-configure.log 2>&1 || { cat build-configure.log; exit 1; }
	@rm -f build-configure.log
	@cmake --build --preset release -j $(JOBS) --target kernels_gpu_test cuda_gpu_test neurogrid-gpu-bench
	@deploy/gpu-kit build build/gpu-kit.tar.xz

bench-peers: build ## the same beside llama.cpp, which is first built in the cache folder
	@python3 tests/bench/compare.py --gguf "$$(deploy/fetch-default-model)"
	@for type in bf16 q8_0 q4_0; do python3 tests/bench/compare.py --synthetic lfm2.5-1.2b:$$type || exit 1; done

clean: ## removes what was built
	@rm -rf build build-asan build-tsan build-debug
