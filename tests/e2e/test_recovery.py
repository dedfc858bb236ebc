"""Workers are killed, frozen and gone while they answer: every text goes on as if nothing had happened."""

import signal
import threading
import time

import openai
import pytest
from conftest import DEVICES
from test_cluster import wait_for

TWO = ["--nodes", "{worker-1: {use: always}, worker-2: {use: always}}"]
STORY = "Once upon a time there was a lighthouse keeper who wrote down the weather three times a day."
LONG = " ".join(f"On day {n} the wind came from the north at {7 * n % 40} knots." for n in range(60))


class Reader:
    """Reads a completion in a thread of its own, as chunks or as a whole."""

    def __init__(self, cluster, stream=True, **options):
        body = dict(model=cluster.model_id, stream=stream, **options)
        body["extra_body"] = {"return_token_ids": True, "timings": True, **options.get("extra_body", {})}
        if stream:
            body["stream_options"] = {"include_usage": True}
        self.choices, self.usage, self.error, self.chunks, self.ids = {}, None, None, 0, set()
        self.recoveries = None  # how often its chain was lost, once it is answered
        self._client, self._body, self._stream = cluster.client(), body, stream
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            answer = self._client.completions.create(**self._body)
            for chunk in answer if self._stream else [answer]:
                self.chunks += 1
                self.ids.add(chunk.id)
                for choice in chunk.choices:
                    self._take(choice)
                self.usage = chunk.usage or self.usage
                if "timings" in chunk.model_extra:
                    self.recoveries = chunk.model_extra["timings"]["recoveries"]
        except Exception as error:  # noqa: BLE001: the test looks at it
            self.error = error

    def _take(self, choice):
        own = self.choices.setdefault(choice.index, {"text": "", "ids": [], "logprobs": [], "finish": []})
        own["text"] += choice.text
        own["ids"] += choice.model_extra.get("token_ids") or []
        own["logprobs"] += choice.logprobs.token_logprobs if choice.logprobs else []
        own["finish"] += [choice.finish_reason] if choice.finish_reason else []

    def answer(self):
        """(choices, tokens in all) of a text that came to its end"""
        self._thread.join(180)
        assert not self._thread.is_alive(), "the answer never ends"
        assert self.error is None, repr(self.error)
        assert len(self.ids) == 1
        assert all(len(choice["finish"]) == 1 for choice in self.choices.values())
        return self.choices, self.usage.completion_tokens

    def failure(self):
        self._thread.join(180)
        assert not self._thread.is_alive(), "the answer never ends"
        return self.error


def asked(tokens):
    """Requests of every kind, the longest of so many tokens."""
    endless = {"extra_body": {"ignore_eos": True}}
    return [
        dict(prompt=STORY, temperature=0, max_tokens=tokens, **endless),
        dict(prompt=STORY, temperature=1, seed=5, n=2, logprobs=1, max_tokens=tokens // 2, **endless),
        dict(prompt="1, 2, 3, 4, 1, 2, 3, 4, 1, 2,", temperature=0, max_tokens=tokens, **endless),
        dict(prompt="List of animals:", temperature=0.7, seed=3, frequency_penalty=0.4, stop=["zebra", "\n\n\n\n"],
             max_tokens=tokens // 2),
        dict(prompt=STORY, stream=False, temperature=0.5, seed=9, max_tokens=tokens // 2, **endless),
    ]


def undisturbed(cluster, requests):
    readers = [Reader(cluster, **request) for request in requests]
    return [reader.answer() for reader in readers]


def begun(*readers, chunks=10):
    wait_for("all streams have begun", lambda: all(r.chunks >= chunks or not r._stream for r in readers))


def stages(cluster):
    """The nodes of the plan in force, in the order of their layers."""
    return [stage["node"] for stage in cluster.get("/v1/cluster")[1]["plan"]["stages"]]


def wait_until_serving(cluster, *names):
    wait_for(f"{names} alone serve", lambda: set(stages(cluster)) == set(names) and cluster.get("/ready")[0] == 200)


def recovery(cluster):
    return cluster.get("/v1/cluster")[1]["recovery"]


def metric(cluster, name):
    lines = cluster.get("/metrics")[1].splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"neurogrid_{name} "))


@pytest.mark.parametrize("speculation", ["auto", "off"])
def test_streams_go_on_when_one_worker_after_the_other_is_killed(start, speculation):
    cluster = start(workers=3, flags=TWO + ["--speculation", speculation]).wait_ready()
    requests = asked(600)
    expected = undisturbed(cluster, requests)
    readers = [Reader(cluster, **request) for request in requests]
    begun(*readers)
    cluster.kill("worker-2")
    wait_for("the other worker goes on", lambda: recovery(cluster)["takeovers"] == 1)
    second = stages(cluster)[0]
    cluster.kill(second)
    assert [reader.answer() for reader in readers] == expected
    assert max(reader.recoveries for reader in readers) == 2
    wait_until_serving(cluster, "worker-3" if second == "worker-1" else "worker-1")
    wait_for("nobody is parked", lambda: recovery(cluster)["parked"] == metric(cluster, "parked_sequences") == 0)
    assert recovery(cluster)["replayed_tokens"] > 0
    assert metric(cluster, "takeovers_total") == metric(cluster, "heal_seconds_count") == 2
    assert recovery(cluster)["takeovers"] == 2
    assert metric(cluster, "replayed_tokens_total") == recovery(cluster)["replayed_tokens"]
    assert undisturbed(cluster, requests[:1]) == expected[:1]


def test_a_prompt_that_is_half_computed_is_computed_again(start):
    cluster = start(workers=3, flags=TWO).wait_ready()
    for stream in (True, False):
        prompt = f"Streamed: {stream}. {LONG}"
        request = dict(prompt=prompt, stream=stream, temperature=0, max_tokens=12, logprobs=2, echo=stream)
        expected = undisturbed(cluster, [{**request, "extra_body": {"cache_prompt": False}}])
        undisturbed(cluster, [dict(prompt=prompt[:len(prompt) // 2], max_tokens=1)])  # half of its pages stay
        replayed, last = recovery(cluster)["replayed_tokens"], stages(cluster)[-1]
        cluster.kill(last, signal.SIGSTOP)  # so that the other half is not over before the kill
        reader = Reader(cluster, **request)
        wait_for("its prompt is being computed", lambda: any(
            entry["state"] == "prefill" for entry in cluster.get("/v1/requests")[1]))
        cluster.kill(last)
        assert [reader.answer()] == expected
        assert reader.recoveries == 1
        if not request["echo"]:  # whose prompt is computed from its beginning
            wait_for("the half is counted", lambda: recovery(cluster)["replayed_tokens"] > replayed)


def test_a_frozen_worker_is_replaced_under_its_streams(start):
    cluster = start(workers=2, flags=TWO).wait_ready()
    requests = asked(200)[:2]
    expected = undisturbed(cluster, requests)
    readers = [Reader(cluster, **request) for request in requests]
    begun(*readers)
    cluster.kill("worker-2", signal.SIGSTOP)
    wait_for("the other worker goes on", lambda: recovery(cluster)["takeovers"] == 1)
    cluster.kill("worker-2", signal.SIGCONT)
    assert [reader.answer() for reader in readers] == expected
    assert max(reader.recoveries for reader in readers) == 1


def two_at_once(cluster):
    cluster.kill("worker-1")
    cluster.kill("worker-2")


def an_heir_too(cluster):
    cluster.kill("worker-1")
    wait_for("the next plan", lambda: len(cluster.get("/v1/cluster")[1]["plan"]["stages"]) == 2)
    cluster.kill("worker-2")


def the_coordinator_stands_still(cluster):
    cluster.coordinator.send_signal(signal.SIGSTOP)
    time.sleep(4)  # longer than the workers wait for it
    cluster.coordinator.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("fault", [two_at_once, an_heir_too, the_coordinator_stands_still])
def test_three_workers_and_a_worse_fault(start, fault):
    use = ", ".join(f"worker-{n}: {{use: always}}" for n in (1, 2, 3))
    cluster = start(workers=3, flags=["--nodes", "{%s}" % use]).wait_ready()
    requests = asked(200)
    expected = undisturbed(cluster, requests)
    readers = [Reader(cluster, **request) for request in requests]
    begun(*readers)
    fault(cluster)
    assert [reader.answer() for reader in readers] == expected
    assert max(reader.recoveries for reader in readers) >= 1
    assert recovery(cluster)["takeovers"] >= 1


def test_streams_wait_for_a_worker_when_none_is_left(start):
    cluster = start(workers=1).wait_ready()
    requests = asked(600)[:2]
    expected = undisturbed(cluster, requests)
    readers = [Reader(cluster, **request) for request in requests]
    leaves = cluster.client().completions.create(model=cluster.model_id, prompt=STORY, max_tokens=2000, stream=True,
                                                 extra_body={"ignore_eos": True})
    next(leaves)
    begun(*readers)
    cluster.kill("worker-1")
    wait_for("all choices wait", lambda: recovery(cluster)["parked"] == 4)
    leaves.close()
    wait_for("who leaves no longer waits", lambda: recovery(cluster)["parked"] == 3)
    assert {entry["state"] for entry in cluster.get("/v1/requests")[1]} == {"recovering"}
    with pytest.raises(openai.InternalServerError) as refused:
        cluster.client().completions.create(model=cluster.model_id, prompt="a", max_tokens=1)
    assert refused.value.code == "recovering"
    assert cluster.get("/ready")[0] == 503 and cluster.get("/health")[0] == 200
    cluster.add_worker("worker-2", device=DEVICES[0])
    assert [reader.answer() for reader in readers] == expected


def test_streams_end_by_name_when_no_worker_comes(start):
    cluster = start(workers=1, flags=["--park-timeout-s", 2]).wait_ready()
    readers = [Reader(cluster, stream=stream, prompt=STORY, max_tokens=2000, extra_body={"ignore_eos": True})
               for stream in (True, False)]
    begun(*readers)
    wait_for("both run", lambda: cluster.get("/v1/cluster")[1]["queue"]["running"] == 2)
    cluster.kill("worker-1")
    for reader in readers:
        assert reader.failure().code == "worker_lost", repr(reader.failure())
    wait_for("nobody waits any more", lambda: cluster.get("/v1/requests")[1] == [])


def test_a_stop_ends_the_wait_for_a_worker(start):
    cluster = start(workers=1, flags=["--drain-timeout-ms", 1000]).wait_ready()
    reader = Reader(cluster, prompt=STORY, max_tokens=2000, extra_body={"ignore_eos": True})
    begun(reader)
    cluster.kill("worker-1")
    wait_for("it waits", lambda: recovery(cluster)["parked"] == 1)
    cluster.coordinator.send_signal(signal.SIGTERM)
    assert reader.failure().code == "draining", repr(reader.failure())
    assert cluster.coordinator.wait(30) == 0


def test_the_coordinators_own_stage_goes_on_alone_when_the_worker_leaves(start):
    cluster = start(workers=1, own=DEVICES[0], flags=["--nodes", "{local: {use: always}, worker-1: {use: always}}"])
    assert len(cluster.wait_ready().get("/v1/cluster")[1]["plan"]["stages"]) == 2
    requests = asked(200)[:2]
    expected = undisturbed(cluster, requests)
    readers = [Reader(cluster, **request) for request in requests]
    begun(*readers)
    cluster.kill("worker-1", signal.SIGTERM)
    assert [reader.answer() for reader in readers] == expected
    wait_until_serving(cluster, "local")
