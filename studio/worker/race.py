"""python -m studio.worker.race RUN-FOLDER: train several settings in turns over one frozen base. Read `run_race`.

Every setting has a run's folder of its own inside the race's, and its turn is a piece of that run: it goes on from its
checkpoint (weights, optimizer, schedule, random states, place in the data) and ends with the next one. So its steps are
those of a run by itself, whatever else took turns meanwhile, and the winner can go on as one.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from studio import data, model, race
from studio.base import source
from studio.device import devices
from studio.errors import StudioError
from studio.home import write_atomic
from studio.run import Run
from studio.runs import base_record
from studio.runs.continuation import check_base
from studio.worker import base_model, contestants, keep_general, loss_check, memory, torch_devices, train
from studio.worker.contestants import Contestant, training_seconds
from studio.worker.memory import peak_memory
from studio.worker.report import Report
from studio.worker.turn import TurnReport, train_turn

TURNS = 2  # turns between two rungs, so that all curves grow at once
TURNS_OF_A_LONG_LEG = 4  # where nobody is stopped on the way
KEPT = "Stopped as asked; what each setting has learnt so far is kept."
DISCARDED = "Stopped and discarded as asked."


def main(run: Run) -> int:
    """Exit code 0: the end event says finished or stopped; 1: it says failed, and why."""
    report = Report(run)
    return report.run_to_exit_code(lambda: RaceRun(run, report).run_race())


class RaceRun:
    """A race from order to end event. Raises StudioError where no setting can be trained."""

    def __init__(self, run: Run, report: Report):
        self.run, self.report, self.contest = run, report, run.config.race
        self.turns = TURNS if self.contest.halving else TURNS_OF_A_LONG_LEG
        self.stopping: str | None = None
        self.done: dict[int, int] = {}  # steps by contestant
        self.folder = Path()
        self.contestants: list[Contestant] = []
        self.braked: dict[Any, keep_general.Answers] = {}  # of the base of the group that races

    def run_race(self) -> None:
        """Prepare all settings, race them group by group, tell the end."""
        self.prepare()
        shared = race.groups([entry.config for entry in self.contestants])
        self._note_groups(shared)
        entrants = 0
        for numbers in shared:
            group = [self.contestants[number] for number in numbers]
            entrants += len(group)
            if self.stopping is None:
                self.race_group(group, entrants, alone=len(shared) == 1)
        self.finish()

    # -- before the first turn

    def prepare(self) -> None:
        """The base's folder, and each contestant with its data and resolved settings."""
        config, device = self.run.config, devices()[0]
        torch_devices.refuse_unusable(device)
        self.report.phase("fetching model")
        self.folder = source.fetch(config.model, report=lambda *progress: print(*progress, flush=True))
        check_base(self.run, self.folder)
        facts = model.facts(self.folder)
        self.report.phase("reading data")
        self.contestants = contestants.prepare(self.run, self.folder, facts)
        self.done = {entry.number: entry.row["step"] for entry in self.contestants}
        torch.set_num_threads(self.contestants[0].resolved.threads)
        torch.set_flush_denormal(True)
        self._emit_plan(facts)

    def _emit_plan(self, facts: model.ModelFacts) -> None:
        first = self.contestants[0]
        cost = race.price(self.run.config, facts, devices()[0], first.rows.statistics)
        lengths = [entry.resolved.steps for entry in self.contestants]
        self.report.emit(
            "plan",
            steps=max(1, round(sum(steps * self.contest.cost(steps) for steps in lengths))),
            epochs=first.config.training.epochs,
            rows=len(first.rows.train),
            eval_rows=len(first.rows.eval),
            parameters=facts.parameters,
            **base_record.of(self.folder),
            estimated_memory=cost.total,
            settings=[entry.row["label"] for entry in self.contestants],
            rungs=self.contest.rungs(),
            data=first.rows.record,
        )

    def _note_groups(self, shared: list[list[int]]) -> None:
        """Say which settings have a base of their own and so run one after the other."""
        for numbers in shared[1:]:
            names = ", ".join(self.contestants[number].row["label"] for number in numbers)
            for number in numbers:
                self.contestants[number].row["shared"] = len(numbers) > 1
            self.report.note(f"Trained after the others, over a base of its own: {names}.")
        if len(shared[0]) == 1:
            self.contestants[shared[0][0]].row["shared"] = False

    # -- what a plan adds (worker/plan.py)

    def is_time_over(self) -> bool:
        """Whether the turns end at once."""
        return False

    def group_begins(self, base: Any, group: list[Contestant]) -> None:
        """Called with a loaded base, before it is wrapped."""

    def rows_of(self, entry: Contestant) -> data.Prepared:
        """What a setting is trained and measured on."""
        return entry.rows

    def turn_ended(self, entry: Contestant, step: int) -> None:
        """Called after each turn, with the setting's model still here."""

    def ending(self) -> dict[str, Any]:
        """Fields of the end event."""
        return {}

    # -- a group: settings over one base

    def race_group(self, group: list[Contestant], entrants: int, alone: bool) -> None:
        """Load the base and let the group's settings take turns, rung by rung, until one is left or all are through.

        entrants: settings of this group and those before. alone: there is no other group.
        """
        racing = [entry for entry in group if entry.races and entry.row["state"] != "finished"]
        if not racing:
            return
        base = self._load_base(racing)
        self.group_begins(base, racing)
        before = 0.0
        for level, share in enumerate(self.contest.rungs()):
            turns = self.turns if len(group) > 1 else 1
            for turn in range(1, turns + 1):
                upto = before + (share - before) * turn / turns
                for entry in racing:
                    self.stopping = self.stopping or self.run.stop_request()
                    if self.stopping is None and entry.races:
                        self.turn(entry, entry.steps_at(upto), base, len(racing) > 1)
            if self.stopping is not None:
                break
            self.judge(group, level, entrants)
            racing = [entry for entry in racing if entry.races]
            before = share
            if not racing or (alone and self.contest.halving and len(racing) == 1):
                break
        for entry in group:
            entry.tuned = None
        del base
        memory.empty_cache()

    def _load_base(self, group: list[Contestant]) -> Any:
        """The base for all of the group, in float32 where fp16 cannot hold this model's numbers."""
        self.braked.clear()
        self.report.phase("loading model")
        first = group[0]
        base = base_model.load_base(first.config, first.resolved, self.folder)
        device = next(base.parameters()).device
        rows = first.rows.train.first(4)
        if first.resolved.dtype == "float16" and not loss_check.is_finite(base, rows, torch.float16, device):
            self.report.note("Computed in float32: this model's numbers go beyond what fp16 holds.", "warning")
            for entry in group:
                entry.resolved = entry.resolved._replace(dtype="float32", autocast=None)
            del base
            memory.empty_cache()
            base = base_model.load_base(first.config, first.resolved, self.folder)
        return base

    def turn(self, entry: Contestant, upto: int, base: Any, shared: bool) -> None:
        """Train a setting up to a step, from its checkpoint. What fails ends this setting, not the race."""
        trained = entry.row["step"] >= entry.resolved.steps
        saved = entry.run.has_result()  # else it was cut off between its last step and its result
        if (entry.row["step"] >= upto and (saved or not trained)) or self.is_time_over():
            return
        entry.row["state"] = "racing"
        report = TurnReport(self, entry, upto)
        report.emit("phase", name="starting")
        try:
            trainer = train_turn(self, entry, report, base, shared)
        except StudioError as error:
            entry.row |= {
                "state": "failed",
                "cause": error.message,
                "train_seconds": training_seconds(entry.run.events()),
            }
            report.emit("end", state="failed", cause=error.message, action=error.hint, reason=error.reason)
            self.report.note(f"{entry.row['label']}: {error.message}", "warning")
            entry.tuned = None
        else:
            self.stopping = report.stopping
            self.turn_ended(entry, trainer.state.global_step)
            entry.read(trainer.state.global_step)
            self.done[entry.number] = entry.row["step"]
            if self.stopping is None and entry.row["step"] >= entry.resolved.steps:
                train.save_result(entry.context(self.folder, report), trainer)
        memory.empty_cache()
        self.tell()

    def judge(self, group: list[Contestant], level: int, entrants: int) -> None:
        """Compare the settings that have come to a rung: the better half goes on."""
        for row in (entry.row for entry in group):
            if row["state"] == "racing" and len(row["losses"]) == level and row["eval_loss"] is not None:
                row["losses"].append(row["eval_loss"])
                if row["step"] >= row["steps"]:
                    row["state"] = "finished"
        pool = [entry for entry in self.contestants if len(entry.row["losses"]) > level]
        pool.sort(key=lambda entry: entry.row["losses"][level])
        kept = self.contest.kept(level, entrants)
        for rank, entry in enumerate(pool, 1):
            if rank <= kept or entry not in group or entry.row["state"] != "racing":
                continue
            step, loss = entry.row["step"], entry.row["losses"][level]
            cause = f"Stopped at step {step}: its held-out loss {loss:.4f} was number {rank} of {len(pool)}."
            entry.row |= {"state": "out", "cause": cause}
            entry.run.append("end", state="stopped", cause=cause, attempt=self.report.attempt)
            entry.tuned = None
        memory.empty_cache()
        self.tell()

    # -- what the race's own folder says

    def count(self, entry: Contestant, step: dict[str, Any]) -> None:
        """A setting's step as one of the race's."""
        self.done[entry.number] = step["step"]
        self.report.emit("step", **{**step, "step": sum(self.done.values()), "contestant": entry.number})

    def tell(self) -> None:
        """The standing, as an evaluation of the race: the table, and the best held-out loss."""
        rows = [entry.row for entry in self.contestants]
        race.rank(rows)
        best = next((row["eval_loss"] for row in rows if row["place"] == 1), None)
        self.report.emit("eval", step=sum(self.done.values()), loss=best, table=rows)

    def finish(self) -> None:
        """Ends of the settings that are still racing, the winner's order, and the race's end event."""
        rows = [entry.row for entry in self.contestants]
        if all(row["state"] == "failed" for row in rows):
            raise StudioError(f"Every setting failed. {rows[0]['label']}: {rows[0]['cause']}", "Change the order.")
        race.rank(rows)
        for entry in self.contestants:
            if entry.row["state"] in ("racing", "waiting") and entry.row["step"]:
                won = self.stopping is None and self.contest.halving and entry.row["place"] == 1
                entry.row["state"] = "won" if won else "stopped"
                cause = f"{'Won' if won else 'Stopped with'} the race at step {entry.row['step']}."
                action = "Go on with it as an ordinary run."
                entry.run.append("end", state="stopped", cause=cause, action=action, attempt=self.report.attempt)
            if self.stopping == "discard":
                shutil.rmtree(entry.run.checkpoints, ignore_errors=True)
                shutil.rmtree(entry.run.result, ignore_errors=True)
        self.tell()
        fields = self.ending()
        if self.stopping is None and (order := race.winner_order(self.run)):
            write_atomic(self.run.folder / "winner.yaml", order)
        if self.stopping is None and self.contest.keep:
            kept = race.keep_part(self.run, rows)
            self.report.note(f"The winner goes on as the run {kept.id}.", run=kept.id)
        cause = DISCARDED if self.stopping == "discard" else KEPT
        self.report.emit(
            "end",
            state="finished" if self.stopping is None else "stopped",
            cause=None if self.stopping is None else cause,
            peak_memory=peak_memory(),
            step=sum(self.done.values()),
            **fields,
        )


if __name__ == "__main__":
    sys.exit(main(Run(Path(sys.argv[1]))))
