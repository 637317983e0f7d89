"""Every named place where a process may die, and what the run must come to afterwards."""

from __future__ import annotations

from studio import queue
from studio.errors import RunError
from studio.run import Run
from tests.faults import stage

# (point, what starts the run there, how the fake trainer behaves). `page`: the point lies in the page's process, which is a process of its own then.
PAGE = ("create.written", "events.queued", "create.renamed", "queue.start", "queue.started")
SUPERVISOR = ("supervise.begin", "supervise.locked", "events.starting", "whole.written", "supervise.launch", "supervise.launched", "supervise.gone",
              "supervise.over")
TRAINER = ("events.reading data", "events.loading model", "events.plan", "events.training", "events.step#1", "events.step#6", "events.half#9", "events.half#14",
           "events.saving#2", "checkpoint.begun#2", "checkpoint.written", "checkpoint.written#2", "whole.written#2", "checkpoint.manifest#2",
           "checkpoint.renamed", "checkpoint.renamed#3", "checkpoint.rotated", "events.saved#2", "result.written", "result.renamed", "events.end")
STOPPING = ("supervise.stop", "supervise.ended")  # reached only when the run is asked to stop
AGAIN = ("result.aside",)  # reached only where an older one stands at the same place
POINTS = (*PAGE, *SUPERVISOR, *TRAINER, *STOPPING, *AGAIN)
SHORT = ("create.renamed", "queue.started", "supervise.locked", "supervise.launched", "events.half#14", "checkpoint.manifest#2", "checkpoint.renamed#3",
         "events.end", "supervise.stop", "result.aside")


def die_at(point: str) -> None:
    """Start a run whose process dies at the point, recover, resume, and check everything."""
    with stage.surroundings(**stage.fake()):
        if point in PAGE:
            run = _in_the_page(point)
        elif point in STOPPING:
            run = _while_stopping(point)
        elif point in AGAIN:
            run = _over_an_older_one(point)
        else:
            with stage.surroundings(STUDIO_CRASH_AT=point):
                run = _submit()
                stage.until(lambda: not run.alive() and not stage.trainers(run), "the processes die")
        if run is not None:
            stage.bring_home(run)
            stage.check_fake(run)
        else:
            queue.advance()
            assert not stage.leftovers()


def _submit() -> Run:
    try:
        return queue.submit(stage.order())
    except RunError:  # the supervisor died before it held its lock: the submitter is told, the run waits
        run = stage.the_run()
        assert run is not None
        return run


def _in_the_page(point: str) -> Run | None:
    """None when the page died before there was a run; then nothing half made may stay."""
    with stage.surroundings(STUDIO_CRASH_AT=point):
        assert stage.page("queue.submit(order())").wait(stage.WAIT) == -9
    run = stage.the_run()
    assert (run is None) == (point in ("create.written", "events.queued"))
    return run


def _while_stopping(point: str) -> Run:
    with stage.surroundings(**stage.fake(pause=0.2, blind=True), STUDIO_CRASH_AT=point):
        run = queue.submit(stage.order())
        stage.until(lambda: stage.steps_told(run), "the first step")
        queue.stop(run, discard=False)
        if point == "supervise.ended":
            stage.kill(stage.trainers(run)[0])  # so that the supervisor has to write the end
        stage.until(lambda: not run.alive() and not stage.trainers(run), "the processes die")
    queue.advance()
    assert run.state() == "stopped", run.turn()
    return run


def _over_an_older_one(point: str) -> Run:
    """A run with a result is resumed; the crash comes where the result is replaced."""
    run = queue.submit(stage.order())
    stage.until(lambda: stage.ended(run), "the first end")
    run.append("end", state="stopped", attempt=1)
    with stage.surroundings(STUDIO_CRASH_AT=point):
        queue.resume(run)
        stage.until(lambda: not run.alive() and not stage.trainers(run), "the processes die")
    return run
