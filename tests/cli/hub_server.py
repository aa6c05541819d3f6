"""A hub on this machine: the endpoints that uploading a folder calls, and what it was sent."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """What arrived.

    Attributes:
        address: of the server.
        refuses: whether it answers everything with 403.
        created: bodies of requests for a repository.
        files: contents of committed files by path.
        calls: methods and paths, in order.
        tokens: authorisations that were sent.
    """

    address: str = ""
    refuses: bool = False
    created: list[dict[str, object]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    summary: str = ""


def serve(hub: Hub) -> ThreadingHTTPServer:
    """Start a server in a thread; the caller shuts it down."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(self._body())

        def do_PUT(self) -> None:
            self._answer(self._body())

        def do_GET(self) -> None:
            self._answer(b"")

        def log_message(self, *_: object) -> None:
            pass

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, body: bytes) -> None:
            path = self.path.split("?")[0]
            hub.calls.append(f"{self.command} {path}")
            if token := self.headers.get("Authorization"):
                hub.tokens.add(token)
            status, value = (403, {"error": "no"}) if hub.refuses else answer(hub, path, body)
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def answer(hub: Hub, path: str, body: bytes) -> tuple[int, object]:
    """What the hub says."""
    if path == "/api/repos/create":
        hub.created.append(json.loads(body))
        return 200, {"url": f"{hub.address}/me/agent"}
    if path.endswith("/preupload/main"):
        asked = json.loads(body)["files"]
        modes = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith("safetensors") else "regular",
                "shouldIgnore": False,
            }
            for one in asked
        ]
        return 200, {"files": modes}
    if path.endswith("/info/lfs/objects/batch"):
        objects = [
            one | {"actions": {"upload": {"href": f"{hub.address}/large/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}
    if path.startswith("/large/"):
        assert hashlib.sha256(body).hexdigest() == path.removeprefix("/large/")
        hub.large[path.removeprefix("/large/")] = body
    elif path.endswith("/commit/main"):
        _commit(hub, body)
        return 200, {"commitUrl": f"{hub.address}/me/agent/commit/1", "commitOid": "1" * 40}
    elif path != "/api/validate-yaml":
        return 404, {"error": path}
    return 200, {"errors": [], "warnings": []}


def _commit(hub: Hub, body: bytes) -> None:
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header":
            hub.summary = value["summary"]
        elif entry["key"] == "file":
            hub.files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            hub.files[value["path"]] = hub.large[value["oid"]]
