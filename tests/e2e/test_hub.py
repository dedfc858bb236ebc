"""Models from a hub: a real HTTPS server on loopback that cuts, lies, corrupts and refuses."""

import hashlib
import json
import os
import pty
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from conftest import COORDINATOR, ROOT, WORKER
from hub_server import MIB, Hub, Repository

TOKEN = "hf_SecretOfTheTest"
NEEDED = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(ROOT / "tests/data/golden/tiny.tar.xz") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def running_hub(tmp_path_factory, golden):
    hub = Hub(tmp_path_factory.mktemp("hub"))
    llama = golden / "tiny/llama"
    base = {name: (llama / name).read_bytes() for name in NEEDED}
    shards = {path.name: path.read_bytes() for path in (llama / "sharded").glob("model*")}
    noise = {"README.md": b"read me", ".gitattributes": b"*.bin", "consolidated.safetensors": b"c" * 999, "pytorch_model.bin": b"p" * 99,
             "onnx/model.onnx": b"o" * 99, "additional_chat_templates/tool_use.jinja": b"{{ messages }}", "chat_template.jinja": b"{{ messages }}"}
    gguf = (golden / "gguf/llama-F32.gguf").read_bytes()
    big = random.Random(1).randbytes(24 * MIB + 12345)
    hub.repositories = {
        "org/tiny": Repository(base | {"model.safetensors": (llama / "model.safetensors").read_bytes()}),
        "org/sharded": Repository(base | shards | noise),
        "org/big": Repository(base | {"model.safetensors": big}),
        "org/ggufs": Repository({"tiny-Q4_K_M.gguf": gguf, "tiny-Q8_0.gguf": gguf + b"8", "mmproj-f16.gguf": b"GGUF", "config.json": b"{}",
                                 "BF16/tiny-BF16-00001-of-00002.gguf": gguf + b"1", "BF16/tiny-BF16-00002-of-00002.gguf": b"GGUF2"}),
        "org/one-gguf": Repository({"tiny.gguf": gguf, "README.md": b"x"}),
        "org/gated": Repository(base | {"model.safetensors": b"s" * 10}, gated=True),
        "org/private": Repository(base | {"model.safetensors": (llama / "model.safetensors").read_bytes()}, token=TOKEN),
        "old/name": Repository({}, renamed_to="org/tiny"),
        "org/pickles": Repository(base | {"pytorch_model.bin": b"p" * 99}),
        "org/bare": Repository(base | {"model.safetensors": (llama / "model.safetensors").read_bytes()}, bare_listing=True),
        "org/huge": Repository(base | {"model.safetensors": b"s"}, sizes={"model.safetensors": 10**15}),
        "org/wrong-size": Repository(base | {"model.safetensors": b"s" * 1000}, sizes={"model.safetensors": 1001}),
    }
    hub.repositories["org/tiny"].revisions["v1.0"] = "1" * 40
    yield hub
    hub.close()


@pytest.fixture
def hub(running_hub):
    running_hub.reset()
    return running_hub


class User:
    """A user of the hub with a home of its own."""

    def __init__(self, hub, home):
        self.hub, self.home = hub, home
        self.cache = home / "hf/hub"
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": hub.endpoint,
                            "SSL_CERT_FILE": str(hub.certificate), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
                            "NEUROGRID_HUB_RETRY_MS": "10"}

    def start(self, *arguments, program=COORDINATOR, **environment):
        return subprocess.Popen([str(program), *map(str, arguments)], env=self.environment | environment,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments, program=COORDINATOR, **environment):
        process = self.start(*arguments, program=program, **environment)
        out, err = process.communicate(timeout=60)
        assert TOKEN not in out + err
        return process.returncode, out, err

    def download(self, *arguments, **environment):
        """The path that was printed."""
        code, out, err = self.run("download", *arguments, **environment)
        assert code == 0, err
        assert out.count("\n") == 1, out
        return Path(out.strip())

    def fails(self, *arguments, **environment):
        code, out, err = self.run("download", *arguments, **environment)
        assert code == 1 and out == "", (code, out, err)
        return err

    def python(self, code, **environment):
        done = subprocess.run([sys.executable, "-c", code], env=self.environment | environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def folder(self, repository):
        return self.cache / f"models--{repository.replace('/', '--')}"

    def blobs(self, repository):
        return {path.name for path in (self.folder(repository) / "blobs").iterdir()}


@pytest.fixture
def user(hub, tmp_path):
    return User(hub, tmp_path)


def names_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_repository_in_shards_comes_whole_and_alone(hub, user):
    repository = hub.repositories["org/sharded"]
    snapshot = user.download("org/sharded")
    assert snapshot == user.folder("org/sharded") / "snapshots" / repository.commit
    wanted = sorted([*NEEDED, "chat_template.jinja", "additional_chat_templates/tool_use.jinja",
                     *(name for name in repository.files if name.startswith("model"))])
    assert names_below(snapshot) == wanted
    for name in wanted:
        assert (snapshot / name).read_bytes() == repository.files[name]
        assert os.readlink(snapshot / name) == "../" * name.count("/") + f"../../blobs/{repository.digest(name)}"
    assert (user.folder("org/sharded") / "refs/main").read_text() == repository.commit
    hub.reset()
    code, out, err = user.run("download", "org/sharded")
    assert code == 0 and out.strip() == str(snapshot) and "in the cache already" in err
    assert len(hub.seen) == 1 and hub.seen[0].path.startswith("/api/"), "only the listing was asked for"


def test_huggingface_hub_finds_what_we_downloaded(hub, user):
    user.download("org/sharded")
    user.download("org/ggufs", "--file", "tiny-Q8_0.gguf")
    found = json.loads(user.python("""
import json
from huggingface_hub import scan_cache_dir, try_to_load_from_cache, snapshot_download
scan = scan_cache_dir()
print(json.dumps({
    "warnings": [str(w) for w in scan.warnings],
    "repos": {r.repo_id: [r.size_on_disk, r.nb_files, [sorted(v.refs) for v in r.revisions]] for r in scan.repos},
    "file": try_to_load_from_cache("org/sharded", "tokenizer.json"),
    "offline": snapshot_download("org/sharded", local_files_only=True)}))"""))
    assert found["warnings"] == []
    assert set(found["repos"]) == {"org/sharded", "org/ggufs"}
    repository = hub.repositories["org/sharded"]
    snapshot = user.folder("org/sharded") / "snapshots" / repository.commit
    sizes = {repository.digest(name): len(repository.files[name]) for name in names_below(snapshot)}
    assert found["repos"]["org/sharded"] == [sum(sizes.values()), len(sizes), [["main"]]]
    assert found["file"] == str(snapshot / "tokenizer.json")
    assert found["offline"] == str(snapshot)


def test_we_find_what_huggingface_hub_downloaded(hub, user):
    path = user.python("from huggingface_hub import snapshot_download; print(snapshot_download('org/sharded'))").strip()
    hub.reset()
    code, out, err = user.run("plan", "--model", "org/sharded")
    assert code == 0, err
    assert out.startswith("org/sharded ") and f"is in the hub cache: {path}" in err
    assert hub.seen == [], "a whole model in the cache needs no network"
    assert user.download("org/sharded") == Path(path)
    assert not [seen for seen in hub.seen if "resolve" in seen.path], "its blobs are ours too"


def test_a_name_that_is_not_in_the_cache_is_downloaded_and_served(hub, user):
    code, out, err = user.run("plan", "--model", "org/tiny")
    assert code == 0, err
    assert out.startswith("org/tiny ")
    code, out, err = user.run("plan", "--model", "org/tiny@v1.0", HF_HUB_OFFLINE="1")
    assert code == 1 and "refs/v1.0" in err and "HF_HUB_OFFLINE" in err
    code, out, err = user.run("plan", "--model", "org/tiny@v1.0")
    assert code == 0 and "snapshots/" + "1" * 40 in user.run("plan", "--model", "org/tiny@v1.0")[2], err
    code, out, err = user.run("plan", "--model", "org/one-gguf")
    assert code == 0 and out.startswith("tiny "), err
    code, out, err = user.run("--bootstrap", "127.0.0.1:1", "--name", "w", "--model", "org/nothing", program=WORKER)
    assert code == 1 and "neurogrid-coordinator download" in err and "refs/main" in err


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, user):
    hub.fault = lambda seen, number: {"location": f"{hub.store}/org/private/model.safetensors?X-Amz-Signature=a%2Bb%3D"} if (
        seen.host == "hub" and "model.safetensors" in seen.path) else {}
    user.download("org/private", HF_TOKEN=TOKEN)
    assert {seen.token for seen in hub.of("hub")} == {f"Bearer {TOKEN}"}
    assert hub.of("store") and {seen.token for seen in hub.of("store")} == {None}


def test_the_token_is_found_where_the_login_of_the_hub_puts_it(hub, user):
    assert "set HF_TOKEN" in user.fails("org/private")
    (user.home / "hf").mkdir(exist_ok=True)
    (user.home / "hf/token").write_text(TOKEN + "\n")
    user.download("org/private")
    assert "your token may read" in user.fails("org/private-too")


def test_a_large_file_comes_in_parallel_ranges(hub, user):
    hub.fault = lambda seen, number: {"pace": 0.05} if seen.host == "store" else {}
    snapshot = user.download("org/big")
    assert (snapshot / "model.safetensors").read_bytes() == hub.repositories["org/big"].files["model.safetensors"]
    assert len({seen.range for seen in hub.of("store")}) == 4
    assert hub.bytes_sent() == 24 * MIB + 12345, "no byte came twice"


def test_a_cut_connection_goes_on_where_it_was(hub, user):
    cuts = {1: 3 * MIB + 7, 2: 100, 4: 0}
    hub.fault = lambda seen, number: {"cut": cuts[number]} if seen.host == "store" and number in cuts else {}
    snapshot = user.download("org/big")
    assert (snapshot / "model.safetensors").read_bytes() == hub.repositories["org/big"].files["model.safetensors"]
    assert hub.bytes_sent() == 24 * MIB + 12345


@pytest.mark.parametrize("how,code", [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_stopped_download_goes_on_in_the_next_process(hub, user, how, code):
    # 17 MiB come, then the host is silent.
    def fault(seen, number):
        if seen.host == "hub" or seen.range in ("bytes=0-8388607", "bytes=8388608-16777215"):
            return {}
        return {"cut": MIB} if seen.range == "bytes=16777216-25165823" else {"stall": 20}

    hub.fault = fault
    process = user.start("download", "org/big")
    deadline = time.monotonic() + 30
    saved = lambda: [path.read_text() for path in (user.folder("org/big") / "blobs").glob("*.map")]
    while saved()[:1] != [f"neurogrid 1 {24 * MIB + 12345}\n0 {17 * MIB}\n"] and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    if how != signal.SIGKILL:
        assert "the same command goes on from there" in err and out == ""
    digest = hub.repositories["org/big"].digest("model.safetensors")
    assert digest not in user.blobs("org/big"), "no final name for a part"
    hub.reset()
    snapshot = user.download("org/big")
    assert (snapshot / "model.safetensors").read_bytes() == hub.repositories["org/big"].files["model.safetensors"]
    assert hub.bytes_sent() == 7 * MIB + 12345
    assert not [name for name in user.blobs("org/big") if "neurogrid" in name]


def test_damaged_bytes_never_get_a_final_name(hub, user):
    hub.fault = lambda seen, number: {"corrupt": seen.range and seen.range.startswith("bytes=0-")} if seen.host == "store" else {}
    err = user.fails("org/big")
    digest = hub.repositories["org/big"].digest("model.safetensors")
    assert "arrived damaged" in err and digest in err
    assert digest not in user.blobs("org/big")
    hub.reset()
    hub.fault = lambda seen, number: {"corrupt": "tokenizer.json" in seen.path}
    assert "tokenizer.json arrived damaged" in user.fails("org/tiny")


def test_what_an_earlier_run_left_damaged_is_fetched_again(hub, user):
    repository = hub.repositories["org/big"]
    blob = user.folder("org/big") / "blobs" / repository.digest("model.safetensors")
    blob.parent.mkdir(parents=True)
    size = len(repository.files["model.safetensors"])
    Path(f"{blob}.neurogrid.incomplete").write_bytes(b"\0" * size)
    Path(f"{blob}.neurogrid.map").write_text(f"neurogrid 1 {size}\n0 {20 * MIB}\n")
    code, out, err = user.run("download", "org/big")
    assert code == 0 and "starting it again" in err
    assert blob.read_bytes() == repository.files["model.safetensors"]
    assert hub.bytes_sent() == size + size - 20 * MIB


def test_wrong_lengths_are_named(hub, user):
    assert "1000 bytes where it is kept, but the hub's list says 1001" in user.fails("org/wrong-size")
    hub.fault = lambda seen, number: {"total": 99} if seen.host == "store" else {}
    assert "/99\", asked for were bytes" in user.fails("org/big")
    hub.fault = lambda seen, number: {"total": 99 * MIB} if seen.host == "store" else {}
    assert f"has {99 * MIB} bytes where it is kept, but the hub's list says {24 * MIB + 12345}" in user.fails("org/big")
    hub.fault = lambda seen, number: {"cut": 10} if seen.host == "store" else {}
    err = user.fails("org/tiny")
    assert "cut the connection" in err and len(hub.of("store")) > 5


@pytest.mark.parametrize("arguments,words", [
    (["org/none"], ["the hub knows no org/none", "set HF_TOKEN"]),
    (["org/gated"], ["org/gated is gated: ask for access at https://localhost", "/org/gated", "HF_TOKEN", "is restricted"]),
    (["org/tiny", "--revision", "v9"], ["org/tiny has no revision v9", "/commits/main"]),
    (["org/tiny", "--revision", "../x"], ["is no revision"]),
    (["org/pickles"], ["org/pickles holds no model", "never loaded"]),
    (["org/tiny", "--file", "x.gguf"], ["org/tiny holds no model"]),
    (["org/ggufs"], ["3 models are in org/ggufs", "org/ggufs:tiny-Q4_K_M.gguf", "MB", "BF16/tiny-BF16-00001-of-00002.gguf"]),
    (["org/ggufs:Q5"], ["is called \"Q5\"", "tiny-Q8_0.gguf"]),
    (["tiny"], ["\"tiny\" is no name on a hub", "ORG/NAME"]),
    (["../x/y"], ["is no name on a hub"]),
    (["org/huge"], ["has no room for org/huge", "1000000.00 GB", "HF_HOME"]),
])
def test_refusals_say_what_to_do(hub, user, arguments, words):
    err = user.fails(*arguments)
    for word in words:
        assert word in err, err


def test_a_busy_or_broken_hub_is_asked_again_a_few_times(hub, user):
    hub.fault = lambda seen, number: {"status": 429, "headers": {"Retry-After": "1"}} if seen.host == "hub" and number == 1 else {"status": 503} if number == 2 else {}
    user.download("org/one-gguf")
    hub.reset()
    hub.fault = lambda seen, number: {"status": 429}
    err = user.fails("org/big")
    assert "too many requests" in err and "HF_TOKEN" in err and len(hub.seen) == 6
    hub.reset()
    hub.fault = lambda seen, number: {"status": 403, "body": b"no"}
    assert "refuses org/big" in user.fails("org/big") and len(hub.seen) == 1
    hub.reset()
    hub.fault = lambda seen, number: {"status": 503} if seen.host == "store" else {}
    assert "where the hub keeps model.safetensors, answers 503" in user.fails("org/big")


def test_a_signed_address_that_has_expired_is_renewed(hub, user):
    used = set()

    def fault(seen, number):
        if seen.host == "store":
            expired = seen.path in used
            used.add(seen.path)
            return {"status": 403} if expired else {}

    hub.fault = fault
    hub.repositories["org/many"] = Repository({"config.json": b"{}", "model.safetensors": random.Random(2).randbytes(72 * MIB)})
    snapshot = user.download("org/many")
    assert (snapshot / "model.safetensors").read_bytes() == hub.repositories.pop("org/many").files["model.safetensors"]
    assert len(hub.of("store")) > len(used), "an address was used again"


@pytest.mark.parametrize("location,words", [
    ("http://127.0.0.1:1/x", "not encrypted: refused"),
    ("https://localhost:{port}/org/tiny/resolve/main/x", "redirects more than 5 times"),
    ("ftp://x/y", "redirects to a bad place"),
    ("https://user@x/y", "redirects to a bad place"),
])
def test_bad_redirects_are_refused(hub, user, location, words):
    location = location.format(port=hub.endpoint.rsplit(":", 1)[1])
    hub.fault = lambda seen, number: {"location": location}
    assert words in user.fails("org/tiny", HF_TOKEN=TOKEN)
    assert len(hub.of("hub")) <= 6


def test_a_renamed_repository_is_followed(hub, user):
    snapshot = user.download("old/name", HF_TOKEN=TOKEN)
    assert (snapshot / "model.safetensors").read_bytes() == hub.repositories["org/tiny"].files["model.safetensors"]
    assert {seen.token for seen in hub.of("hub")} == {f"Bearer {TOKEN}"} and {seen.token for seen in hub.of("store")} == {None}


def test_a_host_without_ranges_serves_too(hub, user):
    hub.fault = lambda seen, number: {"no_ranges": True}
    snapshot = user.download("org/big")
    assert (snapshot / "model.safetensors").read_bytes() == hub.repositories["org/big"].files["model.safetensors"]


def test_a_listing_without_sizes_and_digests_is_completed(hub, user):
    snapshot = user.download("org/bare")
    assert names_below(snapshot) == sorted([*NEEDED, "model.safetensors"])
    assert {seen.path.rsplit("/", 1)[1] for seen in hub.of("hub") if seen.method == "HEAD"} == {*NEEDED, "model.safetensors"}


def test_a_silent_host_is_left_and_asked_again(hub, user):
    hub.fault = lambda seen, number: {"stall": 3} if seen.host == "store" and number == 1 else {}
    user.download("org/tiny", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert len(hub.of("store")) == 2


def test_a_full_disk_is_named_and_the_part_is_kept(hub, user):
    repository = hub.repositories["org/big"]
    blob = user.folder("org/big") / "blobs" / repository.digest("model.safetensors")
    blob.parent.mkdir(parents=True)
    os.symlink("/dev/full", f"{blob}.neurogrid.incomplete")
    err = user.fails("org/big")
    assert "No space left on device" in err and "make room and run this again" in err


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/x", "a//b", "a/./b", "a\\b", "a\x01b", "", "config.json"])
def test_names_that_could_leave_the_cache_are_refused(hub, user, name):
    repository = hub.repositories["org/tiny"]
    hub.repositories["org/evil"] = Repository(repository.files, extra=[{"rfilename": name, "size": 1, "blobId": "0" * 40}])
    err = user.fails("org/evil")
    assert "the hub's list of files cannot be used" in err
    assert names_below(user.home) == []


def test_what_is_no_hub_is_named(hub, user):
    for body in (b"<html>", b"{}", b"[]", b'{"sha": "main", "siblings": []}', b"{" * 100_000, b'{"sha": 1' + b" " * (17 * MIB)):
        hub.fault = lambda seen, number: {"body": body}
        err = user.fails("org/tiny")
        assert "does HF_ENDPOINT name a hub" in err or "more than 16 MiB" in err


def test_no_network_is_named_and_the_cache_serves(hub, user):
    nobody = {"HF_ENDPOINT": "https://localhost:1"}
    assert "cannot connect to https://localhost:1" in user.fails("org/tiny", **nobody)
    snapshot = user.download("org/tiny")
    code, out, err = user.run("download", "org/tiny", **nobody)
    assert code == 0 and out.strip() == str(snapshot) and "using what the cache has" in err
    assert user.download("org/tiny", HF_HUB_OFFLINE="1", **nobody) == snapshot
    assert "HF_HUB_OFFLINE is set" in user.fails("org/big", HF_HUB_OFFLINE="1")
    assert "only https is used" in user.fails("org/tiny", HF_ENDPOINT="http://hub.example")


def test_a_certificate_that_nobody_vouches_for_is_refused(hub, user):
    err = user.fails("org/tiny", HF_TOKEN=TOKEN, SSL_CERT_FILE="")
    assert "shows a certificate that no authority of this machine vouches for" in err
    assert hub.seen == [], "nothing was asked, so no token was shown"
    assert "cannot be read" in user.fails("org/tiny", SSL_CERT_FILE="/nowhere.pem")


def test_one_gguf_of_several_is_chosen_by_name_glob_or_part(hub, user):
    commit = hub.repositories["org/ggufs"].commit
    snapshot = user.folder("org/ggufs") / "snapshots" / commit
    assert user.download("org/ggufs:Q4_K_M") == snapshot / "tiny-Q4_K_M.gguf"
    assert user.download("org/ggufs", "--file", "*Q8*") == snapshot / "tiny-Q8_0.gguf"
    assert names_below(snapshot) == ["tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf"]
    assert user.download("org/ggufs:bf16") == snapshot / "BF16/tiny-BF16-00001-of-00002.gguf"
    assert (snapshot / "BF16/tiny-BF16-00002-of-00002.gguf").read_bytes() == b"GGUF2"
    code, out, err = user.run("plan", "--model", "org/ggufs")
    assert code == 1 and "3 models are in org/ggufs in the hub cache" in err and "org/ggufs:tiny-Q4_K_M.gguf" in err
    code, out, err = user.run("plan", "--model", "org/ggufs:Q4_K_M")
    assert code == 0 and out.startswith("tiny-Q4_K_M "), err


def test_two_processes_download_each_file_once(hub, user):
    hub.fault = lambda seen, number: {"pace": 0.02} if seen.host == "store" else {}
    both = [user.start("download", "org/big") for _ in range(2)]
    outs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert outs[0][0] == outs[1][0]
    assert hub.bytes_sent() == 24 * MIB + 12345


def test_a_folder_of_models_is_looked_through(hub, user, golden):
    models = user.home / "models"
    (models / "maker").mkdir(parents=True)
    os.symlink(golden / "tiny/llama", models / "maker/llama")
    code, out, err = user.run("plan", "--model", models)
    assert code == 0 and "the one model in " in err and "maker/llama" in err
    os.link(golden / "gguf/llama-F32.gguf", models / "other.gguf")
    code, out, err = user.run("plan", "--model", models)
    assert code == 1 and f"2 models are in {models}" in err and f"{models}/maker/llama  " in err and f"{models}/other.gguf  " in err
    code, out, err = user.run("plan", "--model", models / "none")
    assert code == 1 and "there is no file or folder" in err and "no name on a hub" in err
    code, out, err = user.run("plan", "--model", "~/models/maker")
    assert code == 0 and "the one model in " in err


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(hub, user):
    hub.fault = lambda seen, number: {"pace": 0.1} if seen.host == "store" else {}
    code, out, err = user.run("download", "org/big")
    assert "\r" not in err and "downloading model.safetensors (25.2 MB)" in err and " % " not in err.split("came now")[1]
    assert " %: " in err and "MB of 25.2 MB" in err
    code, out, err = user.run("download", "org/tiny", "--quiet")
    assert code == 0 and err == ""
    ours, theirs = pty.openpty()
    user.home = user.home / "second"
    process = subprocess.Popen([str(COORDINATOR), "download", "org/big"], stdout=subprocess.DEVNULL, stderr=theirs,
                               env=user.environment | {"HF_HOME": str(user.home)})
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    assert b"\r\x1b[K[#" in text and b"MB/s" in text and b" left  model" in text
