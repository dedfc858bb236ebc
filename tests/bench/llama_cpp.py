"""Builds llama.cpp's programs outside the tree, from the sources inside the Python package llama-cpp-python.

  python3 tests/bench/llama_cpp.py      prints the folder with llama-bench and llama-batched-bench

Built once for this machine, into the cache folder; an hour on two busy cores, a few minutes on many idle ones.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "neurogrid"
TARGETS = ("llama-bench", "llama-batched-bench")
OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
           "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TOOLS=ON")


def pip():
    """That of the environment which the end-to-end tests use too."""
    venv = CACHE / "venv"
    if not (venv / "bin/pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    return venv / "bin/pip"


def sources(peers):
    """The unpacked source distribution's llama.cpp; its version is part of the folder's name."""
    found = sorted(peers.glob("llama_cpp_python-*/vendor/llama.cpp"))
    if not found:
        with tempfile.TemporaryDirectory(dir=peers) as folder:
            subprocess.run([str(pip()), "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", "llama-cpp-python",
                            "--dest", folder, "llama-cpp-python"], check=True)
            subprocess.run(["tar", "-xzf", str(next(Path(folder).glob("llama_cpp_python-*.tar.gz"))), "-C", str(peers)], check=True)
        found = sorted(peers.glob("llama_cpp_python-*/vendor/llama.cpp"))
    return found[-1]


def build(jobs, targets=TARGETS):
    peers = CACHE / "peers"
    out = peers / "llama-build"
    folder = out / "bin"
    if not all((folder / name).exists() for name in targets):
        peers.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cmake", "-S", str(sources(peers)), "-B", str(out), "-G", "Ninja", *OPTIONS], check=True, stdout=sys.stderr)
        subprocess.run(["nice", "cmake", "--build", str(out), "-j", str(jobs), "--target", *targets], check=True, stdout=sys.stderr)
    return folder


def version():
    """Of the package whose sources were built."""
    return next((p.name for p in (CACHE / "peers").glob("llama_cpp_python-*")), "unknown")


if __name__ == "__main__":
    print(build(os.cpu_count()))
