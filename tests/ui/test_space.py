"""What the page makes of a Hugging Face Space, from its environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from studio.home import PROJECT
from studio.ui import space
from studio.ui.serving import Reach
from studio.ui.tune_summary import summary


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name, value in {
        "SPACE_ID": "anna/studio",
        "SPACE_HOST": "anna-studio.hf.space",
        "SPACE_AUTHOR_NAME": "anna",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(space, "LASTING", tmp_path / "data")
    return monkeypatch


def test_elsewhere_there_is_no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert space.space() is None
    assert space.blocked_reason(None) is None
    assert space.note(None) is None


def test_a_disk_that_does_not_last_is_said(here: pytest.MonkeyPatch) -> None:
    found = space.space()
    assert not found.lasts
    assert "emptied" in space.note(found)


def test_a_bucket_lasts(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert space.space().lasts
    assert "survive" in space.note(space.space())


def test_zero_gpu_cannot_train(here: pytest.MonkeyPatch, home: Path) -> None:
    here.setenv("SPACES_ZERO_GPU", "true")
    found = summary({"data": {"train": "sample"}})
    assert "ZeroGPU" in found["blocked"]
    assert found["duplicate"] == "https://huggingface.co/spaces/anna/studio?duplicate=true"
    assert "ZeroGPU" in summary({"data": {"train": "sample"}}, "zh")["blocked"]


def test_only_the_owner_trains(here: pytest.MonkeyPatch) -> None:
    found = space.space()._replace(login=True)
    assert space.blocked_reason(found) is None
    anna = {"session": {"oauth_info": {"userinfo": {"preferred_username": "anna"}}}}
    assert space.role_of(anna, found) == "owner"
    assert space.role_of({"session": {"oauth_info": {"userinfo": {"preferred_username": "bob"}}}}, found) == "watch"
    assert space.role_of({"session": {}}, found) == "watch"
    assert space.role_of({}, found) == "watch"


@pytest.mark.parametrize(
    ("person", "role"),
    [
        ({"sub": "u1", "preferred_username": "bob"}, "owner"),
        (
            {
                "sub": "u2",
                "preferred_username": "eve",
                "orgs": [{"preferred_username": "lab", "name": "The lab", "roleInOrg": "admin"}],
            },
            "owner",
        ),
        (
            {
                "sub": "u2",
                "preferred_username": "eve",
                "orgs": [{"name": "other"}, {"name": "lab", "roleInOrg": "write"}],
            },
            "owner",
        ),
        ({"sub": "u2", "preferred_username": "eve", "orgs": [{"name": "lab"}]}, "owner"),
        (
            {"sub": "u2", "preferred_username": "eve", "orgs": [{"preferred_username": "lab", "roleInOrg": "read"}]},
            "watch",
        ),
        (
            {
                "sub": "u2",
                "preferred_username": "eve",
                "orgs": [{"preferred_username": "lab", "roleInOrg": "contributor"}],
            },
            "watch",
        ),
        (
            {
                "sub": "u2",
                "preferred_username": "eve",
                "orgs": [{"preferred_username": "bobs-own", "name": "lab", "roleInOrg": "admin"}],
            },
            "watch",
        ),
        ({"sub": "u2", "preferred_username": "eve", "orgs": []}, "watch"),
        ({"sub": "", "preferred_username": ""}, "watch"),
    ],
)
def test_in_an_organisations_space_its_maker_and_its_members_train(
    here: pytest.MonkeyPatch, person: dict, role: str
) -> None:
    """Nobody's name is the organisation's: who made the Space counts, and who may write there.

    A display name proves nothing.
    """
    here.setenv("SPACE_ID", "lab/studio")
    here.setenv("SPACE_AUTHOR_NAME", "lab")
    here.setenv("SPACE_CREATOR_USER_ID", "u1")
    found = space.space()._replace(login=True)
    assert space.role_of({"session": {"oauth_info": {"userinfo": person}}}, found) == role
    assert space.role_of({"session": {"oauth_info": {"userinfo": person, "expires_at": 1}}}, found) == "watch"


def test_where_nobody_can_log_in_it_says_how(here: pytest.MonkeyPatch) -> None:
    assert "STUDIO_PASSWORD" in space.blocked_reason(space.space())
    assert space.role_of({}, space.space()) == "watch"
    here.setenv("STUDIO_OPEN", "1")
    assert space.blocked_reason(space.space()) is None
    assert space.role_of({}, space.space()) == "owner"


def test_a_space_is_public(here: pytest.MonkeyPatch) -> None:
    assert Reach().public


def test_front_matter_of_the_readme() -> None:
    """What the Hub demands of a Space's README, and that both places name one gradio."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    told = yaml.safe_load(text.split("---")[1])
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert text.startswith("---\n")
    assert told["sdk"] == "gradio"
    assert f"gradio=={told['sdk_version']}" in (PROJECT / "requirements.txt").read_text()
    assert (PROJECT / told["app_file"]).is_file()
    assert told["python_version"] == "3.11"
    assert {told["colorFrom"], told["colorTo"]} <= colours
    assert told["hf_oauth"] is True
    assert told["license"]
    assert told["tags"]
    assert told["suggested_hardware"] in (
        "cpu-basic",
        "cpu-upgrade",
        "t4-small",
        "t4-medium",
        "l4x1",
        "a10g-small",
        "a10g-large",
    )
    assert len(told["short_description"]) <= 60
