"""Malformed requests: each gets a 4xx, a sentence naming the thing, and nothing else changes."""

import json
import socket

import pytest

MESSAGES = [{"role": "user", "content": "hi"}]

BODIES = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"\xff\xfe", None),
    (b'{"messages": [}', None),
    (b'{"a":' * 100_000, None),
    (b'{"messages": [], "messages": []}', None),
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]}, "messages[0].content[0].type"),
    ({"messages": MESSAGES, "temperature": "hot"}, "temperature"),
    ({"messages": MESSAGES, "temperature": -1}, "temperature"),
    ({"messages": MESSAGES, "top_p": 2}, "top_p"),
    ({"messages": MESSAGES, "n": 10**9}, "n"),
    ({"messages": MESSAGES, "max_tokens": -5}, "max_tokens"),
    ({"messages": MESSAGES, "stop": [""]}, "stop"),
    ({"messages": MESSAGES, "logit_bias": {"99999999": 1}}, "logit_bias"),
    ({"messages": MESSAGES, "top_logprobs": 3}, "top_logprobs"),
    ({"messages": MESSAGES, "stream_options": {"include_usage": True}}, "stream_options"),
    ({"messages": MESSAGES, "response_format": {"type": "json_object"}}, "response_format"),
    ({"messages": MESSAGES, "functions": [{"name": "f"}]}, "functions"),
    ({"messages": MESSAGES, "seed": 1.5}, "seed"),
    ({"messages": MESSAGES, "repetition_penalty": 1e-30}, "repetition_penalty"),
]


@pytest.mark.parametrize("body,param", BODIES, ids=range(len(BODIES)))
def test_a_malformed_body_is_named(shared, body, param):
    status, headers, answer = shared.post("/v1/chat/completions", body)
    error = answer["error"]
    assert 400 <= status < 500, answer
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["message"] and headers["X-Request-Id"]
    if param:
        assert error["param"] is not None and error["param"].startswith(param), error
    assert shared.get("/health")[0] == 200


@pytest.mark.parametrize("path,method,status", [
    ("/nope", "GET", 404), ("/v1/images/generations", "POST", 404), ("/v1/chat/completions", "GET", 405),
    ("/v1/models/none", "GET", 404), ("/health", "DELETE", 405)])
def test_unknown_paths_and_methods_are_json(shared, path, method, status):
    with socket.create_connection(("127.0.0.1", shared.http_port)) as s:
        s.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: s.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert json.loads(body)["error"]["message"]


def test_garbage_on_either_port_hurts_nobody(shared):
    for port in (shared.http_port, shared.grpc_port):
        for garbage in (b"\x00" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000):
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.settimeout(30)
                try:
                    s.sendall(garbage)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(65536):
                        pass
                except OSError:
                    pass
    assert shared.get("/health")[0] == 200
    assert shared.client().models.list().data
