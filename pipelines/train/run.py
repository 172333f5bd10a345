"""One training: its updates, its checkpoints, and the models that it saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pipelines.cluster import default_workers
from pipelines.outputs import warn_of_unstated
from pipelines.stopping import Stop, Stopped
from pipelines.train.job import TrainingJob
from pipelines.train.progress import TrainingReporter, cure_of
from pipelines.train.training_options import TrainingOptions
from tilenet.errors import InvalidData, InvalidModelFile, TrainingDiverged
from tilenet.inference import ModelHeader, read_header, save_model
from tilenet.networks import ARITHMETIC
from tilenet.training import GreyValues

if TYPE_CHECKING:
    from tilenet.inference import UNet
    from tilenet.training import CheckpointRecord, Ranks, State


def _determining(recipe: dict[str, Any]) -> dict[str, Any]:
    # How often checkpoints are saved and how patches are read ahead changes no weight.
    kept = {name: dict(part) for name, part in recipe.items()}
    for part, name in (("optimization", "checkpoint_every"), ("sampling", "readers")):
        del kept[part][name]
    del kept["sampling"]["queue"]
    # Older versions had no such part.
    if kept["intensity"] == GreyValues().model_dump(mode="json"):
        del kept["intensity"]
    return kept


class TrainingRun:
    """One training: what it has reached, and what it writes."""

    def __init__(
        self, job: TrainingJob, options: TrainingOptions, ranks: Ranks, device: str, stop: Stop
    ) -> None:
        from tilenet.training import CheckpointRecord, checkpoint_path, identities

        self.job, self.options, self.ranks, self.stop = job, options, ranks, stop
        self.patches = job.patches
        self.outputs = job.outputs
        self.checkpoint = checkpoint_path(options.output)
        conditions = {
            "recipe": _determining(job.recipe.to_dict()),
            "volumes": {str(i): v for i, v in enumerate(identities(job.volumes))},
            "processes": ranks.count,
            "device": device.split(":")[0],
            "arithmetic": ARITHMETIC,
        }
        self.record = CheckpointRecord(0, conditions, {})
        self.state = self._begin(device)
        self.loss: float | None = None

    def _begin(self, device: str) -> State:
        import torch

        from tilenet.inference import UNet, check_device
        from tilenet.training import make_state

        torch.set_num_threads(self.options.threads or default_workers(self.ranks.count))
        chosen = self.job.recipe.optimization
        torch.manual_seed(chosen.seed)
        return make_state(UNet(self.job.architecture).to(check_device(device)), chosen)

    def go(self, begun: bool) -> int:
        from tilenet.training import resume
        from tilenet.training import train as updates

        if begun:
            conditions = self.record.conditions
            self.record = resume(self.checkpoint, self.state, conditions)
            if self.ranks.rank == 0:
                warn_of_unstated(str(self.checkpoint), self.record.conditions, conditions)
            self._adopt_best()
        chosen, silent = self.job.recipe.optimization, self.ranks.rank != 0
        stopped = False
        with TrainingReporter(
            chosen.steps,
            self.state.step,
            log=self.options.log,
            silent=silent,
            cure=cure_of(self.job.recipe.sampling.positions),
        ) as reporter:
            if self.options.overwrite and not silent:
                self.checkpoint.unlink(missing_ok=True)  # only now that everything is open
            if begun:
                reporter.note(f"Going on after step {self.state.step} of {chosen.steps}")
            try:
                for step in updates(
                    self.state, self.patches, optimization=chosen, ranks=self.ranks
                ):
                    reporter.step(step)
                    self.loss = reporter.recent_loss
                    self._check_learning(step.done, reporter)
                    unfinished = step.done < chosen.steps
                    stopped = self.ranks.any(bool(self.stop)) and unfinished
                    self._after(step.done, reporter, stopped)
                    if stopped:
                        break
                reporter.finish()
            except TrainingDiverged as error:
                self._keep_last_good(reporter, error.step)
                raise
        if stopped:
            assert self.stop.signal is not None
            raise Stopped(self.stop.signal)
        if not silent:
            self._finish()
        return self.state.step

    def _adopt_best(self) -> None:
        # After a kill between the best model and the checkpoint that says so, the model knows more.
        try:
            stored = read_header(self.options.output).training
        except InvalidModelFile:
            return
        ours = {"recipe": self.job.recipe.to_dict(), "volumes": self.record.conditions["volumes"]}
        found = stored.get("validation")
        best = dict(found) if isinstance(found, Mapping) else {}
        if best.get("step") != self.record.step or any(stored.get(k) != v for k, v in ours.items()):
            return
        if best["value"] < self.record.best.get("value", float("inf")):
            self.record = type(self.record)(self.record.step, self.record.conditions, best)

    def _check_learning(self, done: int, reporter: TrainingReporter) -> None:
        # Before a model is written: the first weights are no model.
        chosen, held_out = self.job.recipe, self.job.held_out
        judged = held_out is not None and done % chosen.validation.every == 0
        if (judged or done == chosen.optimization.steps) and reporter.learnt_nothing:
            problem = f"saw no voxel that counts, labelled and of a weight above 0, in {done} steps"
            raise InvalidData("The training", problem, reporter.cure)

    def _after(self, done: int, reporter: TrainingReporter, stopped: bool) -> None:
        if self.ranks.rank != 0:
            return
        chosen, held_out = self.job.recipe, self.job.held_out
        last = done == chosen.optimization.steps
        if held_out is not None and (done % chosen.validation.every == 0 or last):
            self._validate(done, reporter)
        if (done % chosen.optimization.checkpoint_every == 0 and not last) or stopped:
            self._save_checkpoint()

    def _validate(self, done: int, reporter: TrainingReporter) -> None:
        from tilenet.training import validate

        assert self.job.held_out is not None
        result = validate(
            self.state.network,
            self.job.volumes[0],
            box=self.job.held_out,
            targets=self.job.recipe.targets,
            statistics=self.job.statistics,
            patch=self.patches.patch,
        )
        value = result.get(self.job.recipe.validation.select)
        best = value < self.record.best.get("value", float("inf"))
        reporter.validation(done, result, best=best)
        if best:
            facts = {"step": done, "value": value, "figures": str(result)}
            # First, so that a kill between the two leaves a training to go on with.
            self._save_checkpoint()
            self.record = type(self.record)(done, self.record.conditions, facts)
            self._save_model(self.state.network, done)
            self._save_checkpoint()

    def _save_checkpoint(self) -> None:
        from tilenet.training import save_checkpoint

        record: CheckpointRecord = type(self.record)(
            self.state.step, self.record.conditions, self.record.best
        )
        save_checkpoint(self.checkpoint, self.state, record)

    def _save_model(self, network: UNet, steps: int) -> None:
        counts = self.job.statistics.counts
        record = {
            "steps": steps,
            "seed": self.job.recipe.optimization.seed,
            "loss": self.loss,
            "recipe": self.job.recipe.to_dict(),
            "volumes": self.record.conditions["volumes"],
            "voxels_per_label": {str(value): n for value, n in counts.items()},
            "validation": dict(self.record.best),
        }
        header = ModelHeader(
            architecture=self.job.architecture,
            intensity=self.job.statistics.intensity,
            own=self.job.recipe.intensity.own,
            outputs=self.outputs,
            voxel_size=self.job.volumes[0].raw.voxel_size,
            training=record,
        )
        save_model(self.options.output, network, header)

    def _finish(self) -> None:
        best = self.record.best
        if not best:
            self._save_model(self.state.network, self.state.step)
        self.checkpoint.unlink(missing_ok=True)
        steps = self.job.recipe.optimization.steps
        text = f"{self.options.output}: weights after {self.state.step} of {steps} steps"
        if best:
            text = f"{self.options.output}: best of {steps} steps, after {best['step']}: "
            text += str(best["figures"])
        click.echo(text)

    def _keep_last_good(self, reporter: TrainingReporter, diverged: int) -> None:
        from tilenet.training import read_record, resume

        if self.ranks.rank != 0:
            return
        if self.record.best:
            reporter.note(f"{self.options.output} holds the best model so far.")
            return
        # A checkpoint is good if an update was made from it: its loss and gradients were finite.
        if not self.checkpoint.exists() or read_record(self.checkpoint).step >= diverged:
            reporter.note("No step was known to be good, so no model is written.")
            return
        resume(self.checkpoint, self.state, self.record.conditions)
        self._save_model(self.state.network, self.state.step)
        reporter.note(f"{self.options.output} holds the model after {self.state.step} steps.")
