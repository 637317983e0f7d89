"""Which files an order may name on a page with a login: the studio's own, whatever way a path is written and wherever
its links lead.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio import config
from studio.errors import SPACE, OrderError, StudioError
from studio.home import PROJECT
from studio.ui import aligning, files, jobs, tune, uploads, who
from studio.ui.questions import reads
from studio.ui.who import OWNER, VISITOR, WATCHER
from tests.ui.conftest import public_page
from tests.ui.served import Page
from tests.ui.test_login import sign_in

ROW = '{"instruction": "SECRET-ROW?", "output": "It is SECRET-ROW."}\n'
SECRETS = (
    "locks/chat.json",
    "audit.jsonl",
    "token",
    ".env",
    "runs/one/log.txt",
    "runs/one/config.yaml",
    "runs/one/events.jsonl",
    "cache/x.jsonl",
    "chats/0123456789ab.json",
    "exports/one/adapter.log",
    "datasets/x/part-0.arrow",
)


@pytest.fixture(scope="module")
def full(page_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with everything in it that somebody could want, links that lead out, and a file outside."""
    outside = page_home.parent / "outside"
    for name in (
        *SECRETS,
        "uploads/mine.jsonl",
        "uploads/.hidden.jsonl",
        "uploads/sub/deep.jsonl",
        "exports/one/merged/config.json",
        "models/own/config.json",
        "models/linked/model.safetensors",
        "runs/one/model/config.json",
    ):
        (page_home / name).parent.mkdir(parents=True, exist_ok=True)
        (page_home / name).write_text(ROW)
    outside.mkdir(exist_ok=True)
    (outside / "secret.jsonl").write_text(ROW)
    (outside / "config.json").write_text("{}")
    (outside / "dataset_info.json").write_text('{"x": {"file_name": "secret.jsonl"}}')
    (page_home / "uploads" / "dataset_info.json").write_text(
        json.dumps(
            {
                "in": {"file_name": "mine.jsonl"},
                "out": {"file_name": "link.jsonl"},
                "up": {"file_name": "../token"},
                "hub": {"hf_hub_url": "a/b"},
            }
        )
    )
    for link, target in {
        "uploads/link.jsonl": outside / "secret.jsonl",
        "uploads/up.jsonl": Path("../token"),
        "uploads/good.jsonl": Path("mine.jsonl"),
        "uploads/folder": outside,
        "uploads/round.jsonl": Path("round.jsonl"),
        "models/away": outside,
        "models/linked/config.json": outside / "config.json",
        "uploads/proc.jsonl": Path("/proc/self/environ"),
    }.items():
        if not (page_home / link).is_symlink():
            (page_home / link).symlink_to(target)
    return page_home


def data_paths(home: Path) -> list[str]:
    """Ways to name what is none of the asker's business."""
    out = str(home.parent / "outside" / "secret.jsonl")
    inside = [str(home / name) for name in SECRETS]
    ways = [
        out,
        f"{home}/uploads/../../outside/secret.jsonl",
        f"{home}/uploads/./../token",
        f"{home}//token",
        os.path.relpath(out),
        os.path.relpath(home / "token"),
        f"file://{out}",
        out + "\0.jsonl",
        out.replace("outside", "%6futside"),
        f"{home}/uploads/%2e%2e/token",
        "/proc/self/environ",
        "/proc/self/root" + out,
        "/proc/self/cwd/app.py",
        "/proc/self/fd/0",
        "/dev/stdin",
        "/dev/fd/0",
        "~/.ssh/id_rsa",
        "~root/.bashrc",
        str(PROJECT / "app.py"),
        "app.py",
        "studio/home.py",
        str(PROJECT / "studio" / "samples" / ".." / "home.py"),
        f"{home.parent}/outside/dataset_info.json:x",
        os.path.relpath(home.parent / "outside" / "dataset_info.json") + ":x",
        f"{home}/uploads",
        f"{home}/uploads/",
        f"{home}/uploads/sub",
        "sample:../../home.py",
        f"{home}/uploads/dataset_info.json:out",
        f"{home}/uploads/dataset_info.json:up",
        f"{home}/uploads/folder/secret.jsonl",
    ]
    links = [
        f"{home}/uploads/{name}" for name in ("link.jsonl", "up.jsonl", "round.jsonl", "proc.jsonl", ".hidden.jsonl")
    ]
    return [*inside, *ways, *links]


def requester(role: str, guarded: bool = True) -> Any:
    return who.acting_as(who.Requester(role, "", guarded))


@pytest.mark.parametrize("role", [OWNER, WATCHER, VISITOR])
@pytest.mark.parametrize("key", ["train", "eval", "mixed"])
def test_no_way_to_write_a_path_leads_out(full: Path, role: str, key: str) -> None:
    for path in data_paths(full):
        given = {
            "train": {"train": path},
            "eval": {"train": "sample", "eval": path},
            "mixed": {"train": [{"source": "sample", "weight": 1}, {"source": path, "weight": 1}]},
        }[key]
        if path.startswith("sample:"):
            continue  # refused where samples are looked up
        with requester(role), pytest.raises(StudioError):
            files.allow(config.build({"data": given}))


@pytest.mark.parametrize("role", [OWNER, WATCHER, VISITOR])
def test_models_are_those_of_the_studio(full: Path, role: str) -> None:
    for path in (
        full.parent / "outside",
        full / "models" / "away",
        full / "models" / "linked",
        full / "models",
        full,
        full / "runs",
        full / "runs" / "one",
        full / "runs" / "one" / "log.txt",
        full / "locks",
        full / "models" / ".." / "locks",
        "/proc/self/cwd",
        "/etc",
        full / "models" / "none",
        full / "token.gguf",
        "../outside",
        full / "uploads" / "folder",
    ):
        with requester(role), pytest.raises(OrderError, match="outside"):
            files.allow(config.build({"data": {"train": "sample"}, "model": str(path)}))
    for path in (full / "models" / "own", full / "runs" / "one" / "model", full / "exports" / "one" / "merged"):
        with requester(role):
            files.allow(config.build({"data": {"train": "sample"}, "model": str(path)}))


@pytest.mark.parametrize("role", [OWNER, WATCHER, VISITOR])
def test_uploads_and_samples_are_for_everybody(full: Path, role: str) -> None:
    for source in (
        "sample",
        str(full / "uploads" / "mine.jsonl"),
        str(full / "uploads" / "good.jsonl"),
        str(full / "uploads" / "sub" / "deep.jsonl"),
        f"{full}/uploads/dataset_info.json:in",
    ):
        with requester(role):
            files.allow(config.build({"data": {"train": source, "eval": source}}))


def test_the_computers_own_user_may_name_any_file(full: Path) -> None:
    out = str(full.parent / "outside" / "secret.jsonl")
    with requester(OWNER, guarded=False):
        files.allow(config.build({"data": {"train": out}, "model": "/etc"}))
    with requester(WATCHER, guarded=False), pytest.raises(OrderError):
        files.allow(config.build({"data": {"train": out}}))


PROGRAM, ASKED = {"name": "python"}, {"name": "judge", "url": "http://127.0.0.1:9/v1", "model": "m"}


@pytest.mark.parametrize(
    ("role", "guarded", "public", "program", "judge"),
    [
        (OWNER, False, False, True, True),
        (OWNER, True, False, False, True),
        (OWNER, False, True, False, True),
        *((role, guarded, False, False, False) for role in (WATCHER, VISITOR) for guarded in (True, False)),
    ],
)
def test_programs_run_for_the_computers_own_user_and_judges_are_asked_for_the_owner(
    role: str,
    guarded: bool,
    public: bool,
    program: bool,
    judge: bool,
    full: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By every way that takes an order; the program leaves a trace where it runs."""
    trace, file, prompts = tmp_path / "trace", tmp_path / "mine.py", full / "uploads" / "prompts.json"
    file.write_text(f"open({str(trace)!r}, 'w')\ndef reward(text, row): return 1\n")
    prompts.write_text(json.dumps([{"prompt": f"Q {n}?", "answer": "A."} for n in range(4)]))
    if public:
        monkeypatch.setenv(files.PUBLIC, "1")
    for reward, is_allowed in ((PROGRAM | {"file": str(file)}, program), (ASKED, judge)):
        for others in ([], [{"name": "exact"}]):  # wherever it stands
            stage = {"name": "grpo", "rewards": [*others, reward]}
            order = config.build({"data": {"train": str(prompts)}, "stage": stage})
            with requester(role, guarded):
                if is_allowed:
                    files.allow(order)
                else:
                    with pytest.raises(OrderError, match=r"runs a program|Only the owner"):
                        files.allow(order)
                for ask in (
                    lambda plain=order: tune.rewards_on_data({"order": plain.model_dump(mode="json")}),
                    lambda plain=order: tune.try_rewards(plain.to_yaml()),
                    lambda plain=order: jobs.start(plain.to_yaml()),
                ):
                    if not is_allowed:
                        with pytest.raises(StudioError):
                            ask()
    assert not trace.exists()


def test_a_file_of_preferences_is_not_opened_before_it_is_allowed(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kind, or what is wrong with it, would tell who looks on what is in it."""
    monkeypatch.setattr(aligning.live, "get_run", lambda name: SimpleNamespace(id=name))
    monkeypatch.setattr("studio.origin.order_after", lambda *_: pytest.fail("the file was read"))
    for path in (str(full.parent / "outside" / "secret.jsonl"), str(full / "token"), "/etc/passwd", "/nowhere"):
        for role in (OWNER, WATCHER, VISITOR):
            with requester(role), pytest.raises(OrderError, match="lies outside"):
                aligning.alignment({"id": "one", "name": path})


def test_who_looks_makes_nothing_be_fetched(full: Path) -> None:
    for role in (WATCHER, VISITOR):
        for plain in ({"data": {"train": "somebody/data"}}, {"data": {"train": "sample"}, "model": "somebody/model"}):
            with requester(role), pytest.raises(OrderError, match="not in this studio yet"):
                files.allow(config.build(plain))
    with requester(OWNER):
        files.allow(config.build({"data": {"train": "somebody/data"}, "model": "somebody/model"}))
    (full / "somebody").mkdir(exist_ok=True)
    (full / "somebody" / "data").write_text(ROW)
    before = Path.cwd()
    os.chdir(full)
    try:
        with requester(OWNER), pytest.raises(OrderError):
            files.allow(
                config.build({"data": {"train": "somebody/data"}})
            )  # a file where the page stands, not the Hub's
    finally:
        os.chdir(before)


@pytest.mark.parametrize("user", ["owner", "watch", "visit"])
def test_no_job_and_no_question_hands_out_a_file(
    gated: Page, full: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job and each read with each of those paths in each of its places."""
    monkeypatch.setattr("studio.queue.advance", lambda *a, **k: None)
    if user == "visit":
        with public_page() as page:
            _hands_out_nothing(page, "", data_paths(full)[::4])
    else:
        cookie = sign_in(gated, user, {"owner": "right horse", "watch": "only looking"}[user])
        _hands_out_nothing(gated, cookie, data_paths(full)[:: 1 if user == "watch" else 4])


def _hands_out_nothing(page: Page, cookie: str, paths: list[str]) -> None:
    asked = 0
    for path in paths:
        answers = [
            page.job(*given, Cookie=cookie)
            for given in (
                ("inspect", path, "auto"),
                ("estimate", json.dumps({"data": {"train": path}})),
                ("estimate", json.dumps({"data": {"train": "sample"}, "model": path})),
                ("start", json.dumps({"data": {"train": path}})),
                ("import", {"path": path}, "x"),
                ("chat", f"base:{path}", "hi"),
                ("chat", path, "hi"),
            )
        ]
        orders = (
            {"data": {"train": path, "mapping": {"instruction": path}}, "model": path},
            {"data": {"train": "sample", "eval": path, "template": path}},
            {"data": {"train": "sample"}, "model": path},
        )
        for name in reads():
            for order in orders if name in ("tune/look", "data/preview") else orders[:1]:
                answers.append(
                    page.ask(
                        "POST",
                        f"/studio/ask/{name}",
                        json.dumps({"order": order, "id": path, "name": path, "kind": path, "row": 1}),
                        Content_Type="application/json",
                        Cookie=cookie,
                    )
                )
        asked += len(answers)
        for answer in answers:
            for secret in ("SECRET-ROW", "root:", "PATH="):
                assert secret not in answer.body.replace(path, ""), (path, answer.body[:300])
    assert asked > 300


def test_of_many_uploads_only_the_newest_are_looked_at(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their links are followed, which takes a tenth of a millisecond for each: a second for ten thousand."""
    (home / "uploads").mkdir()
    for number in range(300):
        file = home / "uploads" / f"{number}.jsonl"
        file.write_text(ROW)
        os.utime(file, (number, number))
    looked: list[Path] = []
    monkeypatch.setattr(files, "is_upload", lambda path: looked.append(path) or path.stem != "299")
    assert [one["name"] for one in tune.uploads()] == [f"{number}.jsonl" for number in range(298, 198, -1)]
    assert len(looked) == 101


# -- uploads are kept once


def test_an_upload_is_moved_and_not_kept_twice(
    page: Page, page_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradio_client import Client, handle_file

    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"instruction": f"What is {n}?", "output": f"It is {n}, once."}) + "\n" for n in range(30))
    )
    client = Client(page.address, verbose=False)
    first, second = (Path(client.predict(handle_file(str(file)), "", api_name="/import")["source"]) for _ in range(2))
    assert first == second
    assert first.read_bytes() == file.read_bytes()
    monkeypatch.setattr(uploads, "SHARED_FOR", -1.0)
    file.write_text("no data\0")
    with pytest.raises(Exception, match="."):
        client.predict(handle_file(str(file)), "", api_name="/import")
    assert not [one for one in folder.rglob(file.name) if one.read_bytes() == file.read_bytes()], "refused ones go too"


def test_the_same_bytes_from_two_tabs_at_once_are_both_kept(page_home: Path) -> None:
    file = Path(os.environ["GRADIO_TEMP_DIR"]) / ("c" * 64) / "rows.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(ROW)
    kept = []
    for _ in range(2):  # gradio names an upload by its bytes: there is one file for both
        path = uploads.uploaded({"path": str(file)})
        kept.append(uploads.keep(path, "rows.jsonl"))
        uploads.drop(path)
    assert kept[0] == kept[1]
    os.utime(file.parent, (1, 1))
    uploads.sweep()
    assert not file.exists()


UPLOADED = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.json"\r\n\r\n[1]\r\n--x--\r\n'


@pytest.mark.parametrize("when", ["before", "while it comes"])
def test_an_upload_without_room_is_refused_in_words(
    page: Page, page_home: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if when == "before":
        monkeypatch.setattr(uploads, "RESERVE", 10**18)
    else:
        monkeypatch.setattr("tempfile._TemporaryFileWrapper.write", full, raising=False)
    told = page.ask("POST", "/gradio_api/upload", UPLOADED, Content_Type="multipart/form-data; boundary=x")
    assert told.status == 507
    assert f"the disk of {page_home.resolve()} has " in told.body
    assert told.body.endswith(SPACE)


def test_what_nobody_came_back_for_goes_after_a_day(page_home: Path) -> None:
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    old, new = folder / ("a" * 64), folder / ("b" * 64)
    for one in (old, new):
        one.mkdir(parents=True)
        (one / "x.json").write_text("[]")
    broken, coming, other = (folder / name for name in ("tmp0a_9zxyw", "tmp1a_9zxyw", "notes.txt"))
    for one in (broken, coming, other):
        one.write_text("[")
    for one in (old, broken, other):
        os.utime(one, (1, 1))
    uploads.sweep()
    assert [one.exists() for one in (old, broken, new, coming, other)] == [False, False, True, True, True]
    other.unlink()
