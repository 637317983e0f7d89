"""A run's files damaged, deleted, edited or moved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from studio import config, queue
from studio.home import home
from studio.run import Run, find, runs, summary
from tests.faults import stage

CHECKPOINT = ("model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "manifest.json")


def damaged_checkpoint(name: str, how: str) -> None:
    """The newest checkpoint lacks a file, or one is cut: it is moved aside and said so; the run goes on from the one
    before, exactly.
    """
    with stage.surroundings(**stage.fake()):
        run = stage.crashed_at_step_10()
        damage(run.checkpoints / "checkpoint-8" / name, how)
        queue.resume(run)
        stage.noticed(run, "finished")
    assert any("damaged" in event.get("text", "") for event in run.events()), how
    assert [event["from_step"] for event in run.events() if event.get("from_step")] == [4]
    stage.check_fake(run)


def damage(file: Path, how: str) -> None:
    if how == "missing":
        file.unlink()
    elif how == "changed":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
    else:
        os.truncate(file, file.stat().st_size // 2)


def every_cut() -> None:
    """A finished run's diary loses its last bytes, one more each time."""
    run = stage.finished_run()
    for cut in range(201):
        cut_diary(cut, run, home() / "copy")


def cut_diary(cut: int, run: Run, copy: Path) -> None:
    """The diary of a finished run loses its last `cut` bytes: the state is right, no step counts twice, and it can
    be written on.
    """
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run.folder, copy)
    one = Run(copy)
    os.truncate(one.events_file, one.events_file.stat().st_size - cut)
    assert one.state() in ("finished", "lost"), one.state()
    queue.reconcile(one)
    if cut <= 1:
        stage.noticed(one, "finished")
    else:
        stage.noticed(one, "lost", "ended without a word", "Resume", "lost")
    steps = stage.steps_told(one)
    assert steps == list(range(1, len(steps) + 1))
    one.append("note", level="info", text="on")
    assert one.events()[-1]["text"] == "on"
    assert not list(copy.glob(".*"))


def diary_deleted() -> None:
    """The diary of a run that is over is deleted: the run is not started again by itself, and can be resumed."""
    run = stage.finished_run()
    run.events_file.unlink()
    stage.noticed(run, "lost", "events.jsonl", "Resume", "diary")
    with stage.surroundings(**stage.fake()):
        queue.advance()
        assert run.state() == "lost"
        stage.bring_home(run)
    assert (run.result / "manifest.json").is_file()
    assert not stage.leftovers()


def diary_deleted_while_running() -> None:
    """The diary goes while the run lives: it lives on, and ends as it should."""
    with stage.surroundings(**stage.fake(pause=0.2)):
        run = queue.submit(stage.order())
        stage.until(lambda: len(stage.steps_told(run)) > 2, "two steps")
        run.events_file.unlink()
        stage.until(run.events_file.exists, "the diary's next line")
        assert run.state() in ("starting", "running")
        stage.noticed(run, "finished")
    stage.until(lambda: not run.alive(), "its end")
    assert (run.result / "manifest.json").is_file()
    assert not stage.leftovers()


def order_while_running(how: str) -> None:
    """config.yaml is deleted or edited while the run lives: the run ends as it began, stays in the list, and says
    what is wrong at a resume.
    """
    with stage.surroundings(**stage.fake(pause=0.1)):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        file = run.folder / "config.yaml"
        if how == "deleted":
            file.unlink()
        else:
            file.write_text(config.parse(file.read_text()).with_changes(data={"max_length": 77}).to_yaml())
        assert [one.id for one in runs()] == [run.id], "it stays in the list"
        assert find("last").id == run.id
        stage.noticed(run, "finished")
        stage.check_fake(run)
        told = summary(Run(run.folder))
        assert told["name"], told
        run.append("phase", name="queued", attempt=1)  # as by hand
        stage.noticed(
            Run(run.folder),
            "failed",
            "no readable config.yaml" if how == "deleted" else "max_length was 1024 and is 77",
            "",
        )


def folder_moved() -> None:
    """A run's folder is moved away while it runs: its processes end, nothing is written in the old place, the next
    run starts; back again, it is resumed.
    """
    with stage.surroundings(**stage.fake(pause=0.1)):
        run, after = queue.submit(stage.order()), queue.submit(stage.order("after"))
        stage.until(lambda: len(stage.steps_told(run)) > 4, "some steps")
        away = home() / "away"
        trainer = stage.trainers(run)[0]
        os.rename(run.folder, away)
        stage.until(lambda: not trainer.is_running() or trainer.status() == "zombie", "the trainer's end", 15)
        stage.noticed(after, "finished")
        assert not run.folder.exists()
        os.rename(away, run.folder)
        stage.noticed(run, "lost", "", "Resume")
        stage.bring_home(run)
        stage.until(lambda: not after.alive(), "the other's end")
    stage.check_fake(run)
