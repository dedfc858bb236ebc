"""Real programs, real sockets, the real default model. Every process started here ends here."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("NG_BIN", ROOT / "build/bin"))
COORDINATOR, WORKER = BIN / "neurogrid-coordinator", BIN / "neurogrid-worker"
DEVICES = os.environ.get("NG_E2E_DEVICE", "cpu").split(",")  # workers take them in turn; cuda:0 puts all on one GPU
DEVICE = DEVICES[0]
START_LIMIT_S = 120  # ends a hang; no test measures time


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long sweeps too")


@pytest.fixture
def long_run(request):
    return request.config.getoption("--long")


def default_model():
    named = os.environ.get("NG_SMOLLM2")
    if named:
        return named
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return str(cache / "neurogrid/models/SmolLM2-135M-Instruct.Q4_1.gguf")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(program, *arguments, timeout=60):
    """A program that ends by itself: (exit code, stdout, stderr)."""
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


class Cluster:
    """A coordinator and workers on loopback, each with a state folder of its own."""

    def __init__(self, folder, workers=0, model=None, devices=DEVICES, flags=(), worker={}, own=None):
        self.folder = Path(folder)
        self.model = model or default_model()
        self.http_port, self.grpc_port = free_port(), free_port()
        self.log = open(self.folder / "log", "w+b")
        device = own or ("none" if workers else DEVICE)
        self.workers = {}
        self.coordinator = self._spawn(
            COORDINATOR, "serve", "--model", self.model, "--device", device, "--min-peers", workers,
            "--http-port", self.http_port, "--grpc-port", self.grpc_port, "--state-dir", self.state_dir,
            "--workload-concurrency", 4, "--workload-prompt-tokens", 512, "--drain-delay-ms", 0, *flags)
        for n in range(workers):
            self.add_worker(f"worker-{n + 1}", **{"device": devices[n % len(devices)], **worker})

    @property
    def state_dir(self):
        return self.folder / "coordinator"

    def _spawn(self, program, *arguments, **environment):
        return subprocess.Popen([str(program), *map(str, arguments)], stdout=self.log, stderr=subprocess.STDOUT,
                                env={**os.environ, **environment})

    def token(self):
        for _ in range(100):
            code, out, err = run(COORDINATOR, "token", "--state-dir", self.state_dir, "--grpc-port", self.grpc_port)
            if code == 0:
                return out.strip().splitlines()[-1]
            time.sleep(0.1)
        raise AssertionError(f"no token: {err}")

    def add_worker(self, name, *flags, device=DEVICE, program=WORKER, **environment):
        self.workers[name] = self._spawn(
            program, "--bootstrap", f"127.0.0.1:{self.grpc_port}", "--token", self.token(), "--name", name,
            "--model", self.model, "--device", device, "--threads", 1, "--state-dir", self.folder / name, *flags,
            **environment)

    def kill(self, name, how=signal.SIGKILL):
        self.workers[name].send_signal(how)
        if how == signal.SIGKILL:
            self.workers.pop(name).wait()

    def get(self, path, headers={}):
        """(status, body as JSON or text)"""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body.decode()

    def post(self, path, body, headers={}):
        """(status, headers, body as JSON); `body` is bytes or an object"""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.headers, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.loads(error.read())

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http_port}"

    def wait_ready(self):
        deadline = time.monotonic() + START_LIMIT_S
        last = None
        while time.monotonic() < deadline:
            assert self.coordinator.poll() is None, f"the coordinator ended:\n{self.text()}"
            try:
                status, last = self.get("/ready")
                if status == 200:
                    return self
            except OSError as error:
                last = error
            time.sleep(0.05)
        raise AssertionError(f"not ready: {last}\n{self.text()}")

    def client(self, key="x", **options):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, timeout=120, max_retries=0, **options)

    @property
    def model_id(self):
        return self.get("/v1/models")[1]["data"][0]["id"]

    def text(self):
        self.log.flush()
        return (self.folder / "log").read_text(errors="replace")

    def stop(self):
        everyone = [self.coordinator, *self.workers.values()]
        for process in everyone:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in everyone:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise AssertionError(f"did not end on SIGTERM:\n{self.text()}")
        self.log.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Two workers for every test that does not change the cluster."""
    both = "{worker-1: {use: always}, worker-2: {use: always}}"
    cluster = Cluster(tmp_path_factory.mktemp("shared"), workers=2, flags=["--nodes", both]).wait_ready()
    yield cluster
    cluster.stop()


@pytest.fixture
def start(tmp_path):
    """start(workers=2, flags=[...]): clusters of one test, ended after it."""
    started = []

    def begin(**options):
        folder = tmp_path / f"cluster-{len(started)}"
        folder.mkdir()
        started.append(Cluster(folder, **options))
        return started[-1]

    yield begin
    for cluster in started:
        cluster.stop()
