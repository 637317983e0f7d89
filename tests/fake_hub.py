"""The part of the Hub's HTTP that a download uses, on loopback: repositories are folders, requests are recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import yaml

from tests.loopback import answering

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _front_matter(readme: Path) -> dict[str, object]:
    parts = readme.read_text().split("---\n") if readme.is_file() else []
    return yaml.safe_load(parts[1]) if len(parts) > 2 else {}


@contextmanager
def serving(
    repos: dict[str, Path], gated: tuple[str, ...] = (), closed: tuple[str, ...] = ()
) -> Iterator[tuple[str, list[str]]]:
    """repos: "owner/name" (a data set: "datasets/owner/name") -> folder.

    gated: those that refuse everything; closed: those that say they are gated, and let this caller in. A repository's
    card is the front matter of its README.md. Yields the endpoint (for HF_ENDPOINT) and the list of "METHOD path" seen
    so far.
    """
    seen: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_POST(self) -> None:
            """paths-info: which of the paths in the body there are."""
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(body=True)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            seen.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0].strip("/").split("/")
            if path == [""]:
                return self._send(b"hub", {}, body)
            api = path[:2] in (["api", "models"], ["api", "datasets"])
            kind = "datasets/" if "datasets" in path[:2] else ""
            path = path[2:] if api else path[1:] if kind else path
            repo = kind + "/".join(path[:2])
            if repo in gated:
                return self._send(b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, body, 403)
            if repo not in repos:
                return self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, body, 404)
            folder = repos[repo]
            if api:
                return self._send(
                    json.dumps(self._listing(repo, folder, path)).encode(), {"Content-Type": "application/json"}, body
                )
            file = folder / "/".join(path[4:])  # owner, name, "resolve", revision
            if not file.is_file():
                return self._send(b"", {"X-Error-Code": "EntryNotFound"}, body, 404)
            data, code, extra = file.read_bytes(), 200, {}
            span = self.headers.get("Range")
            if span:
                first, _, last = span.removeprefix("bytes=").partition("-")
                end = int(last) if last else len(data) - 1
                extra = {"Content-Range": f"bytes {first}-{end}/{len(data)}"}
                data, code = data[int(first) : end + 1], 206
            tag = hashlib.sha256(file.read_bytes()).hexdigest()
            self._send(
                data, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes", **extra}, body, code
            )

        def _listing(self, repo: str, folder: Path, path: list[str]) -> object:
            files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
            if "tree" in path:
                under = "/".join(path[4:])
                folders = sorted(str(inner.relative_to(folder)) for inner in folder.rglob("*") if inner.is_dir())
                deep = "recursive=true" in self.path.lower()
                files = [
                    name
                    for name in files
                    if name.startswith(f"{under}/" if under else "") and (deep or Path(name).parent == Path(under))
                ]
                folders = [
                    name
                    for name in folders
                    if name.startswith(f"{under}/" if under else "") and (deep or Path(name).parent == Path(under))
                ]
                return [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in folders] + [
                    {
                        "type": "file",
                        "path": name,
                        "size": (folder / name).stat().st_size,
                        "oid": hashlib.sha1(name.encode()).hexdigest(),
                    }
                    for name in files
                ]
            return {
                "id": repo,
                "modelId": repo,
                "sha": COMMIT,
                "private": False,
                "siblings": [{"rfilename": name} for name in files],
                "gated": repo in closed,
                "cardData": _front_matter(folder / "README.md"),
            }

        def _send(self, data: bytes, headers: dict[str, str], body: bool, code: int = 200) -> None:
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    with answering(Hub) as address:
        yield address, seen
