"""Models with windows and with recurrent states, served by two workers: the reference's tokens, cold, cached, at once."""

import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import BIN, DEVICE, DEVICES

GOLDEN = Path(__file__).resolve().parents[1] / "data/golden"
PLACES = [DEVICES] if DEVICE == "cpu" else [DEVICES, (DEVICE, "cpu"), ("cpu", DEVICE)]
TWO = ["--quantization", "f32", "--nodes", "{worker-1: {use: always}, worker-2: {use: always}}"]


def unpack(name, folder):
    subprocess.run(["tar", "-xJf", GOLDEN / f"tiny-{name}.tar.xz", "-C", folder], check=True)
    return folder / "tiny" / name


def held(cluster):
    """What sequences hold, of every kind that the model needs."""
    plan = cluster.get("/v1/cluster")[1]["plan"]
    return {kind: plan[f"{kind}_total"] - plan[f"{kind}_free"]
            for kind in ("pages", "window_pages", "slots") if f"{kind}_total" in plan}


def references_of(model, cluster):
    references = json.loads((model / "reference.json").read_text())["prompts"]
    ends = set(cluster.get("/props")[1]["end_token_ids"])
    for reference in references:  # the reference goes on after an end token; we do not
        stop = [n for n, token in enumerate(reference["greedy"], 1) if token in ends]
        reference["greedy"] = reference["greedy"][:stop[0] if stop else None]
    return references


def check_answers(cluster, references, kinds, at_once):
    """Cold, cached, many at once; then nothing is held."""

    def answer(reference, **options):
        body = dict(model=cluster.model_id, prompt=reference["ids"], temperature=0, max_tokens=32, return_token_ids=True,
                    **options)
        status, _, answer = cluster.post("/v1/completions", body)
        assert status == 200, answer
        return [choice["token_ids"] for choice in answer["choices"]], answer["usage"]

    for reference in references:
        assert answer(reference)[0] == [reference["greedy"]], f"{len(reference['ids'])} tokens, cold"
    for reference in references:
        tokens, usage = answer(reference)
        assert tokens == [reference["greedy"]], f"{len(reference['ids'])} tokens, cached"
        assert usage["prompt_tokens_details"]["cached_tokens"] == (len(reference["ids"]) - 1) // 16 * 16

    got = {}
    threads = [threading.Thread(target=lambda n=n: got.update({n: answer(references[n % len(references)], n=1 + n % 3)[0]}))
               for n in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {n: [references[n % len(references)]["greedy"]] * (1 + n % 3) for n in range(at_once)}

    assert set(held(cluster)) == kinds
    deadline = time.monotonic() + 60
    while any(held(cluster).values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(held(cluster).values()), "something leaked"


@pytest.mark.parametrize("devices", PLACES)
@pytest.mark.parametrize("name, kinds", [("lfm2", {"pages", "slots"}), ("gemma3", {"pages", "window_pages"})])
def test_two_workers_give_the_references_tokens(start, tmp_path, name, kinds, devices):
    model = unpack(name, tmp_path)
    cluster = start(workers=2, devices=devices, model=str(model), flags=TWO).wait_ready()
    assert len(cluster.get("/v1/cluster")[1]["plan"]["stages"]) == 2
    check_answers(cluster, references_of(model, cluster), kinds, at_once=15)


def test_a_gpu_that_is_kept_a_step_ahead_gives_the_references_tokens(start, tmp_path):
    model = unpack("lfm2", tmp_path)
    gpu = {} if DEVICE.startswith("cuda") else dict(program=BIN / "emulated_worker", device="cuda:0")
    cluster = start(workers=1, worker=gpu, model=str(model), flags=["--quantization", "f32"]).wait_ready()
    check_answers(cluster, references_of(model, cluster), {"pages", "slots"}, at_once=4)
