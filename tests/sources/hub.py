"""A hub on this machine: one data set at two commits, answered over HTTP as the real one does.

python hub.py      prints its port and serves until it is stopped
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

REPO = "lab/rows"
OLD, NEW = "a" * 40, "b" * 40
CARD = b"""---
license: odc-by
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train.jsonl}
  - {split: test, path: data/test.jsonl}
---
"""


def rows(tag: str, number: int) -> bytes:
    """A JSONL file."""
    lines = [{"prompt": f"{tag} question {i}", "completion": f"answer {i}"} for i in range(number)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def files(tag: str, number: int) -> dict[str, bytes]:
    return {
        "README.md": CARD,
        "data/train.jsonl": rows(tag, number),
        "data/test.jsonl": rows("held", 3),
    }


COMMITS = {OLD: files("old", 30), NEW: files("new", 2500)}
REFS = {"main": NEW}


class Hub(BaseHTTPRequestHandler):
    """The few addresses that `datasets` asks for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return None

    def answer(self, code: int, body: bytes = b"", size: int | None = None, **head: str) -> None:
        self.send_response(code)
        for name, value in head.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        if found := re.fullmatch(rf"/api/datasets/{REPO}(?:/revision/(.+))?", path):
            self.info(REFS.get(found[1] or "main", found[1]))
        elif found := re.fullmatch(rf"/api/datasets/{REPO}/tree/([^/]+)/data", path):
            content = COMMITS[found[1]]
            self.json([entry(name, content[name]) for name in content if "/" in name])
        elif found := re.fullmatch(rf"/datasets/{REPO}/resolve/([^/]+)/(.+)", path):
            self.file(found[1], COMMITS.get(found[1], {}).get(found[2]))
        else:
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")

    def info(self, commit: str | None) -> None:
        """What the hub says of a data set."""
        if commit not in COMMITS:
            self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
            return
        listed = [{"rfilename": name} for name in COMMITS[commit]]
        card = {"license": "odc-by"}
        self.json({"id": REPO, "sha": commit, "cardData": card, "siblings": listed, "tags": []})

    def file(self, commit: str, data: bytes | None) -> None:
        """A file or a range of its bytes."""
        if data is None:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        mark = f'"{hashlib.sha1(data).hexdigest()}"'
        head = {"ETag": mark, "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            part = f"bytes {first}-{last}/{len(data)}"
            self.answer(206, data[first : last + 1], **head, Content_Range=part)
        elif self.command == "HEAD":
            self.answer(200, b"", len(data), **head)
        else:
            self.answer(200, data, **head)


def entry(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
