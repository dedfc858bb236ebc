"""A hub on loopback: HTTPS, the routes that clients use, files kept on a second host, faults on request."""

import hashlib
import itertools
import json
import re
import ssl
import subprocess
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MIB = 1 << 20


def make_certificate(folder):
    """(certificate, key): self-signed, for localhost and 127.0.0.1; its own authority."""
    certificate, key = folder / "ca.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=hub test", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True)
    return certificate, key


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Repository:
    """The files of one revision. `large` are kept as LFS files: named by SHA-256, on the second host."""

    def __init__(self, files, large=(".safetensors", ".gguf", ".bin"), **options):
        self.files = dict(files)
        self.large = {name for name in self.files if name.endswith(large)}
        self.revisions = {"main": hashlib.sha1(repr(sorted(self.files)).encode()).hexdigest()}
        self.gated = options.get("gated", False)
        self.token = options.get("token")  # needed to see it
        self.renamed_to = options.get("renamed_to")
        self.bare_listing = options.get("bare_listing", False)  # no sizes, no digests
        self.sizes = options.get("sizes", {})  # lies of the listing
        self.extra = options.get("extra", [])  # further entries of the listing, as they are

    @property
    def commit(self):
        return self.revisions["main"]

    def digest(self, name):
        data = self.files[name]
        return hashlib.sha256(data).hexdigest() if name in self.large else git_sha1(data)

    def siblings(self):
        listed = []
        for name, data in self.files.items():
            entry = {"rfilename": name}
            if not self.bare_listing:
                entry |= {"size": self.sizes.get(name, len(data)), "blobId": git_sha1(data)}
                if name in self.large:
                    entry["lfs"] = {"sha256": self.digest(name), "size": self.sizes.get(name, len(data)), "pointerSize": 134}
            listed.append(entry)
        return listed + self.extra

    def tree(self):
        listed = []
        for name, data in self.files.items():
            entry = {"type": "file", "oid": git_sha1(data), "size": len(data), "path": name}
            if name in self.large:
                entry["lfs"] = {"oid": self.digest(name), "size": len(data), "pointerSize": 134}
            listed.append(entry)
        return listed


class Seen:
    """A request as it arrived, and what of its body was sent."""

    def __init__(self, host, handler):
        self.host, self.method, self.path = host, handler.command, handler.path
        self.token = handler.headers.get("Authorization")
        self.range = handler.headers.get("Range")
        self.sent = 0


class Hub:
    """`fault(seen, number)` may change an answer: a dict with status, headers, body, cut (bytes after which the
    connection ends), stall (seconds), corrupt, no_ranges, total (lie of Content-Range), location, pace (seconds a MiB).
    `number` counts requests of that host from 1."""

    def __init__(self, folder):
        self.repositories, self.seen, self.fault = {}, [], lambda seen, number: {}
        self.lock, self.serials = threading.Lock(), itertools.count()
        self.certificate, key = make_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.servers = {}
        for host in ("hub", "store"):
            server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(host))
            server.daemon_threads = True
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            self.servers[host] = server
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.endpoint = f"https://localhost:{self.servers['hub'].server_port}"
        self.store = f"https://127.0.0.1:{self.servers['store'].server_port}"

    def close(self):
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def reset(self):
        self.seen, self.fault = [], lambda seen, number: {}

    def of(self, host):
        with self.lock:
            return [seen for seen in self.seen if seen.host == host]

    def bytes_sent(self, host="store"):
        return sum(seen.sent for seen in self.of(host))

    def _handler(self, host):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass  # the client went away

            def do_GET(self):
                seen = Seen(host, self)
                with hub.lock:
                    hub.seen.append(seen)
                    number = sum(other.host == host for other in hub.seen)
                change = hub.fault(seen, number) or {}
                status, headers, body = hub._hub(self) if host == "hub" else hub._store(self)
                status, body = change.get("status", status), change.get("body", body)
                headers |= change.get("headers", {})
                if "location" in change:
                    status, headers, body = 302, {"Location": change["location"]}, b""
                self._answer(seen, status, headers, body, change)

            do_HEAD = do_GET

            def _answer(self, seen, status, headers, body, change):
                if change.get("stall"):
                    time.sleep(change["stall"])
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
                if asked and status == 200 and not change.get("no_ranges"):
                    first, last = int(asked[1]), min(int(asked[2]), len(body) - 1)
                    status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{change.get('total', len(body))}"
                    body = body[first:last + 1]
                if change.get("corrupt"):
                    body = bytes([body[0] ^ 1]) + body[1:]
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                cut = change.get("cut")
                for at in range(0, len(body[:cut]), MIB // 4):
                    piece = body[:cut][at:at + MIB // 4]
                    self.wfile.write(piece)
                    seen.sent += len(piece)
                    if change.get("pace"):
                        time.sleep(change["pace"] / 4)
                if cut is not None:
                    self.close_connection = True

        return Handler

    def _error(self, status, code, message):
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        return status, headers, json.dumps({"error": message}).encode()

    def _hub(self, handler):
        path = urllib.parse.unquote(urllib.parse.urlsplit(handler.path).path)
        kind = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name, revision = (kind[1], kind[3] or "main") if kind else (file[1], file[2]) if file else ("", "")
        repository = self.repositories.get(name)
        if repository and repository.renamed_to:
            return 307, {"Location": handler.path.replace(name, repository.renamed_to)}, b""
        if not repository or repository.token and handler.headers.get("Authorization") != f"Bearer {repository.token}":
            return self._error(401, "RepoNotFound", "Repository not found")
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.revisions.values():
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if kind:
            answer = repository.tree() if kind[2] == "tree" else {
                "id": name, "modelId": name, "sha": commit, "private": False, "tags": [], "downloads": 0, "siblings": repository.siblings()}
            return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()
        if repository.gated:
            return self._error(403, "GatedRepo", f"Access to model {name} is restricted")
        data = repository.files.get(file[3])
        if data is None:
            return self._error(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{repository.digest(file[3])}"', "Accept-Ranges": "bytes"}
        if file[3] not in repository.large:
            return 200, headers, data
        signed = f"{self.store}/{name}/{urllib.parse.quote(file[3])}?X-Amz-Signature=a%2Bb%3D&Serial={next(self.serials)}"
        return 302, headers | {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(data)), "Location": signed}, b"moved"

    def _store(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        _, organisation, name, file = urllib.parse.unquote(url.path).split("/", 3)
        if urllib.parse.parse_qs(url.query).get("X-Amz-Signature") != ["a+b="]:
            return 403, {}, b"bad signature"
        return 200, {"ETag": '"other"'}, self.repositories[f"{organisation}/{name}"].files[file]
