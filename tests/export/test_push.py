"""The push to the Hub, against a fake of its HTTP on loopback: private, whole, going on after a break, and never
telling the token.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from transformers import AutoModelForCausalLM

from studio import combining, config, run
from studio.errors import ExportError
from studio.export import push
from studio.run import Run
from studio.talk.reference import resolve
from studio.worker.merge import weights
from tests.loopback import answering
from tests.worker.test_combine import on_base, parent, submit_and_follow
from tests.worker.test_export import logits

TOKEN = "hf_secretsecretsecret"
WEIGHTS = save({"weight": torch.ones(100)})


class Fake:
    """What the Hub would hold: repositories, large files by hash, commits. fail: a path that answers 500."""

    def __init__(self) -> None:
        self.repos: list[dict] = []
        self.large: dict[str, bytes] = {}
        self.commits: list[list[dict]] = []
        self.fail, self.tokens, self.address = "", set(), ""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, dict | None]:
        self.tokens.add(token)
        if self.fail and self.fail in path:
            return 400, {"error": f"no luck with {TOKEN}"}
        if path == "/api/repos/create":
            self.repos.append(json.loads(body))
            return 200, {"url": f"{self.address}/me/mine"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            return 200, {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for one in json.loads(body)["files"]
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {
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
            }
        if method == "PUT":
            self.large[path.rpartition("/")[2]] = body
            return 200, {}
        if "/commit/" in path:
            self.commits.append([json.loads(line) for line in body.decode().splitlines()])
            return 200, {"commitUrl": f"{self.address}/me/mine/commit/1", "commitOid": "1", "success": True}
        print("the fake Hub does not know", method, path)
        return 404, {"error": "what?"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, told = fake.answer(
                self.command, self.path.partition("?")[0], body, self.headers.get("authorization", "")
            )
            data = json.dumps(told).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(data)

        do_PUT = do_GET = do_HEAD = do_POST

    with answering(Handler) as address:
        fake.address = address
        for module in ("constants", "hf_api", "lfs", "_commit_api"):
            monkeypatch.setattr(f"huggingface_hub.{module}.ENDPOINT", address, raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.hf_api.HfApi.__init__", _at(address))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield fake


def _at(address: str):
    from huggingface_hub import HfApi

    before = HfApi.__init__
    return lambda self, *args, **options: before(self, *args, **{**options, "endpoint": address})


@pytest.fixture
def finished(home: Path, tiny_model: Path, tiny_data: Path) -> Run:
    one = run.create(config.build({"name": "mine", "model": str(tiny_model), "data": {"train": str(tiny_data)}}))
    one.result.mkdir()
    (one.result / "adapter_model.safetensors").write_bytes(WEIGHTS)
    (one.result / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model), "r": 16}))
    (one.result / "manifest.json").write_text(json.dumps({"base": str(tiny_model), "stop": ["<|im_end|>"]}))
    (one.result / "tokenizer.json").write_text("{}")
    one.append("step", step=1, loss=2.0, attempt=1)
    one.append("end", state="finished", attempt=1)
    return one


def committed(fake: Fake) -> dict[str, bytes]:
    """Path -> content of the small files of the last commit; large ones by their hash."""
    files = {}
    for line in fake.commits[-1]:
        if line["key"] == "file":
            files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        elif line["key"] == "lfsFile":
            files[line["value"]["path"]] = fake.large[line["value"]["oid"]]
    return files


def test_push_is_private_and_whole(hub: Fake, finished: Run, tiny_model: Path) -> None:
    told = []
    answer = push.push(finished, "me/mine", progress=lambda *step: told.append(step))
    assert hub.repos[0].get("visibility", hub.repos[0].get("private")) in ("private", True)
    files = committed(hub)
    assert set(files) == set(answer["files"])
    assert set(files) == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "manifest.json",
        "README.md",
        "curve.png",
    }
    assert files["adapter_model.safetensors"] == WEIGHTS
    assert files["README.md"].startswith(b"---\nbase_model:")
    assert files["curve.png"].startswith(b"\x89PNG")
    assert not [name for name, data in files.items() if str(tiny_model.parent).encode() in data]
    assert told[-1][1] == told[-1][2] == answer["bytes"]


def test_push_goes_on_where_it_broke(hub: Fake, finished: Run) -> None:
    hub.fail = "/commit/"
    with pytest.raises(ExportError, match="failed"):
        push.push(finished, "me/mine")
    sent, hub.fail = dict(hub.large), ""
    hub.large = dict.fromkeys(sent, b"kept")  # sent again, it would be overwritten
    push.push(finished, "me/mine")
    assert list(hub.large.values()) == [b"kept"]
    assert finished.state() == "finished"
    assert [event["level"] for event in finished.events() if event["kind"] == "note"] == ["warning"]


def test_token_is_told_nowhere(hub: Fake, finished: Run, home: Path) -> None:
    hub.fail = "/commit/"
    with pytest.raises(ExportError) as caught:
        push.push(finished, "me/mine")
    assert hub.tokens >= {f"Bearer {TOKEN}"}
    assert "secret" not in str(caught.value)
    assert not [file for file in home.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
    hub.fail = ""
    push.push(finished, "me/mine")
    assert not [name for name, data in committed(hub).items() if TOKEN.encode() in data]


@pytest.mark.parametrize(("repo", "message"), [("mine", "no repository"), ("a/b/c", "no repository")])
def test_refusals(hub: Fake, finished: Run, repo: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match=message):
        push.push(finished, repo)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ExportError, match="No token"):
        push.push(finished, "me/mine")


def test_what_an_export_asked_stands_in_for_samples(finished: Run) -> None:
    from studio.export import card, proof
    from studio.export import report as page_report

    assert "## Samples" not in card.card(finished)
    asked = proof.questions(finished.id)
    assert len(asked) == 20
    proof._cache_file(finished.id, finished.result, asked).write_text(
        json.dumps([{"text": f"Answer {n}."} for n in range(20)])
    )
    assert "> Answer 0." in card.card(finished)
    assert '<blockquote translate="no">Answer 4.</blockquote>' in page_report.report(finished)


def test_card_and_report(finished: Run, tiny_model: Path) -> None:
    from studio.export import card
    from studio.export import report as page_report

    finished.append(
        "sample", step=1, prompt="<script>alert(1)</script>", answer="*bold* [link](javascript:x)", attempt=1
    )
    text = card.card(finished)
    assert "| rank | 16 |" in text
    assert "rows.json`: 40 rows, format alpaca, fingerprint `" in text
    assert "<script>" not in text
    assert str(tiny_model.parent) not in text
    page = page_report.report(finished)
    assert "<script>" not in page
    assert not re.search(r"(src|href)=", page)
    assert "<svg" in page
    assert "method:" in page


def test_a_combination_is_pushed_with_its_adapters_named_and_works_from_there(
    hub: Fake, home: Path, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """What arrives at the Hub is opened by peft alone and computes what the merged combination computes."""
    parents = [parent(tiny_model, seed, tiny_data, rank=4) for seed in (1, 2)]
    both = submit_and_follow(combining.order(parents, [0.5, 0.25], "cat"))
    both.append("end", state="finished", attempt=1)
    push.push(both, "me/both")
    files = committed(hub)
    text = files["README.md"].decode()
    assert all(f"| {name.id} | {weight:g} |" in text for name, weight in zip(parents, (0.5, 0.25), strict=True))
    assert not [name for name, data in files.items() if str(tmp_path).encode() in data or str(home).encode() in data]
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for name, data in files.items():
        (arrived / name).write_bytes(data)
    reference, ids = resolve(both.id), torch.arange(5, 25)[None]
    merged = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    merged.load_state_dict(dict(weights(reference)), strict=False)
    torch.testing.assert_close(on_base(tiny_model, arrived), logits(merged.eval(), ids), atol=1e-4, rtol=1e-4)
