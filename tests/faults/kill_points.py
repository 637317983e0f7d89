"""Every named place where a process may die, and what the run must come to afterwards."""

from __future__ import annotations

from studio import queue
from studio.errors import RunError
from studio.run import Run
from tests.faults import stage

# (point, what starts the run there, how the fake trainer behaves). `page`: the point is in the page's process, which is
# a process of its own then.
PAGE = ("create.written", "events.queued", "create.renamed", "queue.start", "queue.started")
SUPERVISOR = (
    "supervise.begin",
    "supervise.locked",
    "events.starting",
    "whole.written",
    "supervise.launch",
    "supervise.launched",
    "supervise.gone",
    "supervise.over",
)
TRAINER = (
    "events.reading data",
    "events.loading model",
    "events.plan",
    "events.training",
    "events.step#1",
    "events.step#6",
    "events.half#9",
    "events.half#14",
    "events.saving#2",
    "checkpoint.begun#2",
    "checkpoint.written",
    "checkpoint.written#2",
    "whole.written#2",
    "checkpoint.manifest#2",
    "checkpoint.renamed",
    "checkpoint.renamed#3",
    "checkpoint.rotated",
    "events.saved#2",
    "result.written",
    "result.renamed",
    "events.end",
)
STOPPING = ("supervise.stop", "supervise.ended")  # reached only when the run is asked to stop
AGAIN = ("result.aside",)  # reached only where an older one stands at the same place
POINTS = (*PAGE, *SUPERVISOR, *TRAINER, *STOPPING, *AGAIN)
SHORT = (
    "queue.started",
    "supervise.launched",
    "events.half#14",
    "checkpoint.manifest#2",
    "checkpoint.renamed#3",
    "events.end",
    "result.aside",
)
UNSTARTED = ("supervise.begin", "supervise.locked")
OVER = (
    "supervise.gone",
    "supervise.over",
    "events.end",
)  # behind the end line, or behind the trainer's: the run has ended as it should


def die_at(point: str) -> None:
    """Start a run whose process dies at the point, see what is said of it, recover, resume, and check everything."""
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
        if run is None:
            queue.advance()
            assert not stage.leftovers()
            return
        say(point, run)
        stage.bring_home(run)
        stage.check_fake(run)


def say(point: str, run: Run) -> None:
    """What a page says of a run whose process died at this point."""
    if point in (*PAGE, *UNSTARTED, *OVER):  # what waits is moved on by whoever looks
        stage.noticed(run, "finished")
    elif point in STOPPING:
        stage.noticed(run, "stopped", "Stopped as asked", "Resume")
    elif point in SUPERVISOR:
        stage.noticed(run, "lost", "ended without a word", "Resume", "lost")
    else:
        stage.noticed(run, "failed", "was killed (SIGKILL)", "Resume", "killed")


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
