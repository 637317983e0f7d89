"""The Hub's repositories and Jobs on loopback: repositories are folders, a Job is a process of this computer."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from studio.home import PROJECT
from tests.loopback import answering

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATE = "2026-11-01T00:00:00.000Z"


class Job:
    """One Job: its relay runs here, in a home of its own, without the installation that stands before it in the
    command.
    """

    def __init__(self, number: int, spec: dict[str, Any], home: Path, endpoint: str, extra: dict[str, str]):
        self.id, self.spec, self.lines = f"job{number}", spec, []
        words = shlex.split(spec["command"][-1].rpartition("exec ")[2])
        environment = {
            **os.environ,
            **spec["environment"],
            **spec["secrets"],
            "STUDIO_HOME": str(home),
            "HF_ENDPOINT": endpoint,
            **extra,
        }
        self.process = subprocess.Popen(
            [sys.executable, *words[1:]],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def stage(self) -> str:
        code = self.process.poll()
        return "RUNNING" if code is None else "COMPLETED" if code == 0 else "ERROR"

    def info(self) -> dict[str, Any]:
        message = "Job timeout" if self.stage == "ERROR" else None
        return {
            "id": self.id,
            "createdAt": DATE,
            "dockerImage": self.spec.get("dockerImage"),
            "command": self.spec["command"],
            "arguments": [],
            "environment": {},
            "flavor": self.spec["flavor"],
            "labels": self.spec.get("labels"),
            "owner": {"id": "1", "name": "me", "type": "user"},
            "status": {"stage": self.stage, "message": message, "exposeUrls": None, "sshUrl": None},
        }


class Hub:
    """What it holds and has heard. fail: answered 402 to who starts a Job. extra: added to the Jobs' environment."""

    def __init__(self, folder: Path):
        self.extra: dict[str, str] = {}
        self.folder, self.large, self.jobs, self.bodies, self.fail = folder, {}, [], [], False
        self.address = ""

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """One request; whatever is not known is 404."""
        split = urlsplit(handler.path)
        path, query = unquote(split.path), parse_qs(split.query)
        parts = path.strip("/").split("/")
        self.bodies.append(body)
        if path == "/api/whoami-v2":
            return self.json(handler, {"name": "me", "type": "user", "auth": {}})
        if path == "/api/repos/create":
            asked = json.loads(body)
            (self.folder / "me" / asked["name"]).mkdir(parents=True, exist_ok=True)
            return self.json(handler, {"url": f"{self.address}/me/{asked['name']}", "private": asked.get("private")})
        if path.startswith("/api/jobs/"):
            return self.job(handler, parts[2:], query, body)
        if handler.command == "PUT":
            self.large[parts[-1]] = body
            return self.json(handler, {})
        api = parts[:2] == ["api", "models"]
        repo = self.folder / "/".join(parts[2:4] if api else parts[:2]).removesuffix(".git")
        if not repo.is_dir():
            return self.send(handler, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if "/preupload/" in path:
            return self.json(
                handler,
                {
                    "files": [
                        {
                            "path": one["path"],
                            "shouldIgnore": False,
                            "uploadMode": "lfs" if one["path"].endswith((".safetensors", ".pt", ".pth")) else "regular",
                        }
                        for one in json.loads(body)["files"]
                    ]
                },
            )
        if path.endswith("/info/lfs/objects/batch"):
            return self.json(
                handler,
                {
                    "transfer": "basic",
                    "objects": [
                        {
                            **one,
                            **(
                                {}
                                if one["oid"] in self.large
                                else {"actions": {"upload": {"href": f"{self.address}/put/{one['oid']}"}}}
                            ),
                        }
                        for one in json.loads(body)["objects"]
                    ],
                },
            )
        if "/commit/" in path:
            self.commit(repo, [json.loads(line) for line in body.decode().splitlines()])
            return self.json(
                handler, {"commitUrl": f"{self.address}/me/x/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
            )
        if api:
            return self.listing(handler, repo, parts)
        return self.file(handler, repo / "/".join(parts[4:]))

    def commit(self, repo: Path, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] in ("file", "lfsFile"):
                file = repo / value["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(
                    base64.b64decode(value["content"]) if line["key"] == "file" else self.large[value["oid"]]
                )
            elif line["key"] == "deletedFile":
                (repo / value["path"]).unlink(missing_ok=True)

    def listing(self, handler: BaseHTTPRequestHandler, repo: Path, parts: list[str]) -> None:
        files = sorted(file for file in repo.rglob("*") if file.is_file())
        if "tree" in parts or "paths-info" in parts:
            under = "/".join(parts[6:])
            return self.json(
                handler,
                [
                    {
                        "type": "file",
                        "path": str(file.relative_to(repo)),
                        "size": file.stat().st_size,
                        "oid": digest(file)[:40],
                    }
                    for file in files
                    if str(file.relative_to(repo)).startswith(under)
                ],
            )
        self.json(
            handler,
            {
                "id": f"me/{repo.name}",
                "modelId": f"me/{repo.name}",
                "sha": COMMIT,
                "private": True,
                "siblings": [{"rfilename": str(file.relative_to(repo))} for file in files],
            },
        )

    def file(self, handler: BaseHTTPRequestHandler, file: Path) -> None:
        if not file.is_file():
            return self.send(handler, 404, b"", {"X-Error-Code": "EntryNotFound"})
        self.send(handler, 200, file.read_bytes(), {"ETag": f'"{digest(file)}"', "X-Repo-Commit": COMMIT})

    def job(self, handler: BaseHTTPRequestHandler, parts: list[str], query: dict[str, list[str]], body: bytes) -> None:
        if len(parts) == 1 and handler.command == "POST":
            if self.fail:
                return self.send(handler, 402, b'{"error": "no credit"}', {"X-Error-Message": "Payment required"})
            self.jobs.append(
                Job(len(self.jobs), json.loads(body), self.folder / f"home-{len(self.jobs)}", self.address, self.extra)
            )
            return self.json(handler, self.jobs[-1].info())
        if len(parts) == 1:
            wanted = dict(label.split("=", 1) for label in query.get("label", []))
            return self.json(
                handler,
                [
                    job.info()
                    for job in self.jobs
                    if job.stage in query.get("stage", [job.stage])
                    and wanted.items() <= job.spec.get("labels", {}).items()
                ],
            )
        job = next(job for job in self.jobs if job.id == parts[1])
        if len(parts) == 2:
            return self.json(handler, job.info())
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        told = 0
        while told < len(job.lines) or job.stage == "RUNNING":
            for line in job.lines[told:]:
                told += 1
                handler.wfile.write(f"data: {json.dumps({'data': line, 'timestamp': DATE})}\n\n".encode())
            handler.wfile.flush()
            time.sleep(0.1)

    def json(self, handler: BaseHTTPRequestHandler, told: Any) -> None:
        self.send(handler, 200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def send(self, handler: BaseHTTPRequestHandler, code: int, data: bytes, headers: dict[str, str]) -> None:
        handler.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            hub.answer(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        do_PUT = do_GET = do_HEAD = do_POST

    with answering(Handler) as address:
        hub.address = address
        try:
            yield hub
        finally:
            for job in hub.jobs:
                job.process.kill()
