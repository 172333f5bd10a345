"""Every error that a user can meet, in one tree.

::

    TilenetError
    |- InvalidData            values or arguments that cannot mean what they should
    |- GeometryError
    |  |- IllegalSize         a size that the network cannot take or give along an axis
    |  |- UnalignedBlock      a block whose size breaks alignment or does not fill whole shards
    |  `- RegionOutside       a region that leaves the volume
    |- ArchitectureError      a description of a network that no network can have
    |- InvalidRecipe          a training recipe with unknown or impossible keys
    |- InvalidProfile         a cluster profile with unknown or impossible keys
    |- VolumeError
    |  |- UnreadableVolume    missing, not a volume, or with metadata that say something impossible
    |  |- StoreFailed         an object store refuses, fails or does not answer
    |  |- AmbiguousVolume     several readings are possible, and the user has to choose
    |  |- UnreadableBlock     stored bytes of a box that cannot be read or decoded
    |  |- NonFiniteValues     NaN or infinity in a box of the input
    |  |- OutputExists        the output is there already and is something else
    |  |- OutputDamaged       what is stored is not what its command stored
    |  |- OutputInsideInput   the output would be written into the input
    |  `- VoxelSizeMismatch   the model was trained at another voxel size
    |- ModelError
    |  |- InvalidModelFile    not a model file of ours, or a broken one
    |  |- ModelMismatch       the model cannot be applied to this volume
    |  `- NonFiniteOutput     the network's output is NaN or infinite
    |- TrainingDiverged       the loss or a gradient is not finite
    |- ResumeRefused          the output was begun under something else
    |- ResourceError
    |  |- NotEnoughMemory     even the smallest tile does not fit
    |  |- DeviceUnavailable   there is no such device
    |  |- LibraryUnfit        a library lacks what is needed of it
    |  |- WorkerTooSmall      a worker has less memory than the plan needs
    |  |- WorkerUnfit         a worker is of another kind, or of other versions, than the run
    |  |- BlockHung           a block did not end within its time
    |  |- WorkerOverMemory    a worker was ended because it took more memory than it may
    |  |- WorkerDied          workers died while they computed a block
    |  |- WorkersDied         worker after worker died, and no block was finished
    |  |- WorkersGone         no worker is left, and none comes
    |  |- WorkersUnfit        every worker was sent away, for it could compute no block
    |  |- OutageLasted        block after block failed for longer than the user waits
    |  |- SchedulerLost       the Dask scheduler ended or is out of reach
    |  |- QueueRefused        a command of the queueing system failed
    |  |- JobsNotStarted      no job of the queueing system started in time
    |  `- JobsFailed          job after job ended before it was of use
    `- BlocksFailed           some blocks failed; the others are done

Classes take fields, not text: a caller can read the value that was wrong, and an error that a
Dask worker raises arrives at the client whole. ``str(error)`` is the message for people: what
was wrong, where, and what to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self


def _rebuild(cls: type[TilenetError], fields: dict[str, Any]) -> TilenetError:
    return cls(**fields)


class TilenetError(Exception):
    """Base of every error that tilenet raises on purpose."""

    def message(self) -> str:
        """Say what was wrong, where, and what to do."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.message()

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception pickles its positional arguments only; our fields may be given by keyword.
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return _rebuild, (type(self), fields)


@dataclasses.dataclass(eq=False)
class InvalidData(TilenetError):
    """Values or arguments that cannot mean what they should."""

    what: str
    problem: str
    cure: str
    lasting: bool = False  # another try would meet the same

    def message(self) -> str:
        return f"{self.what}: {self.problem}. {self.cure}"


class GeometryError(TilenetError):
    """Base of errors about boxes, sizes and alignment."""


@dataclasses.dataclass(eq=False)
class IllegalSize(GeometryError):
    """A size that the network cannot take or give along an axis."""

    what: str
    axis: str
    value: int
    nearest: tuple[int, ...]

    def message(self) -> str:
        legal = " and ".join(str(size) for size in self.nearest)
        return (
            f"{self.what} of {self.value} along {self.axis} is not legal for this network. "
            f"Nearest legal sizes: {legal}."
        )


@dataclasses.dataclass(eq=False)
class UnalignedBlock(GeometryError):
    """A block whose size breaks the alignment or does not fill whole shards."""

    what: str
    axis: str
    value: int
    step: int
    reason: str
    nearest: tuple[int, ...]

    def message(self) -> str:
        legal = " and ".join(str(size) for size in self.nearest)
        return (
            f"{self.what} of {self.value} along {self.axis} is not a multiple of {self.step} "
            f"({self.reason}). Nearest that is: {legal}."
        )


@dataclasses.dataclass(eq=False)
class RegionOutside(GeometryError):
    """A region that leaves the volume, or is empty."""

    region: str
    volume: str

    def message(self) -> str:
        return (
            f"The region {self.region} is empty or leaves the volume {self.volume}. "
            "Give ranges inside the volume, for example --region z=0:10,y=0:512,x=0:512."
        )


@dataclasses.dataclass(eq=False)
class ArchitectureError(TilenetError):
    """A description of a network that no network can have."""

    field: str
    value: object
    problem: str

    def message(self) -> str:
        return f"Architecture: {self.field} = {self.value!r}: {self.problem}."


@dataclasses.dataclass(eq=False)
class InvalidRecipe(TilenetError):
    """A training recipe that cannot be read or carried out."""

    where: str
    problems: Sequence[str]

    def message(self) -> str:
        lines = (f"  {line}" for line in self.problems)
        cure = "Correct the recipe, or the option that changes it; tilenet train --help lists both."
        return "\n".join([f"Recipe {self.where}:", *lines, cure])


@dataclasses.dataclass(eq=False)
class InvalidProfile(TilenetError):
    """A cluster profile, or options of its kind, that cannot be read or carried out."""

    where: str
    problems: Sequence[str]

    def message(self) -> str:
        lines = (f"  {line}" for line in self.problems)
        cure = "Correct it, or the option of the same name; tilenet cluster show --help lists them."
        return "\n".join([f"Cluster {self.where}:", *lines, cure])


class VolumeError(TilenetError):
    """Base of errors about stored volumes."""


@dataclasses.dataclass(eq=False)
class UnreadableVolume(VolumeError):
    """A path that is missing, is not a volume, or describes something impossible."""

    path: str
    problem: str
    cure: str

    @classmethod
    def unreachable(cls, path: str, error: OSError) -> Self:
        """Say that the system does not let us look at a path."""
        cure = "Check its permissions and those of the folders above it"
        return cls(path, f"cannot be accessed: {error.strerror or error}", cure)

    def message(self) -> str:
        return f"{self.path}: {self.problem}. {self.cure.removesuffix('.')}."


@dataclasses.dataclass(eq=False)
class StoreFailed(VolumeError):
    """An object store that refuses, fails or does not answer."""

    location: str
    problem: str
    cure: str

    def message(self) -> str:
        return f"{self.location}: {self.problem}. {self.cure.removesuffix('.')}."


@dataclasses.dataclass(eq=False)
class AmbiguousVolume(VolumeError):
    """A path with several readings, between which the user has to choose."""

    path: str
    problem: str
    choices: tuple[str, ...]
    cure: str
    #: Whether the choices are volumes below the path; else they are readings of one.
    are_volumes: bool = False

    def message(self) -> str:
        found = ", ".join(self.choices)
        return f"{self.path}: {self.problem} ({found}). {self.cure.removesuffix('.')}."


@dataclasses.dataclass(eq=False)
class UnreadableBlock(VolumeError):
    """Stored bytes of a box that cannot be read or decoded."""

    path: str
    box: str
    problem: str
    #: Whether its bytes can be had and are wrong; else they may be out of reach for a while.
    damaged: bool = False

    def message(self) -> str:
        return (
            f"{self.path}: cannot read {self.box}: {self.problem}. What is stored there is "
            "corrupt or out of reach; restore it and run the same command again."
        )


@dataclasses.dataclass(eq=False)
class NonFiniteValues(VolumeError):
    """NaN or infinity in a box of the input."""

    path: str
    box: str
    count: int

    def message(self) -> str:
        return (
            f"{self.path}: {self.count} values in {self.box} are NaN or infinite, and would spoil "
            "every voxel whose context holds them. Replace them, then run the same command again."
        )


@dataclasses.dataclass(eq=False)
class OutputExists(VolumeError):
    """The output is there already, and is something else."""

    path: str
    found: str
    replaceable: bool = True

    def message(self) -> str:
        cure = ", or replace it with --overwrite" if self.replaceable else ""
        return f"{self.path} exists and is {self.found}. Choose another output{cure}."


@dataclasses.dataclass(eq=False)
class OutputInsideInput(VolumeError):
    """The output would be written into the input, or the input into the output."""

    output: str
    input: str

    def message(self) -> str:
        return (
            f"The output {self.output} and the input {self.input} lie inside one another. "
            "Choose an output beside the input, not within it."
        )


@dataclasses.dataclass(eq=False)
class OutputDamaged(VolumeError):
    """What is stored is not, or cannot be, what the command that made it stored."""

    path: str
    count: int
    found: Sequence[str]
    cure: str

    def message(self) -> str:
        lines = [f"  {line}" for line in self.found]
        rest = self.count - len(self.found)
        if rest:
            lines.append(f"  and {rest} more (--json lists all)")
        problems = "problem" if self.count == 1 else "problems"
        head = f"{self.path}: {self.count} {problems} found:"
        return "\n".join([head, *lines, self.cure])


@dataclasses.dataclass(eq=False)
class VoxelSizeMismatch(VolumeError):
    """The model was trained at another voxel size than the volume has."""

    path: str
    volume_nm: tuple[float, ...]
    model_nm: tuple[float, ...]
    fitting_level: str | None

    def message(self) -> str:
        if self.fitting_level is None:
            cure = "No pyramid level of this volume fits; resample it"
        else:
            cure = f"Its pyramid level {self.fitting_level} fits: --level {self.fitting_level}"
        return (
            f"{self.path} has voxels of {_nm(self.volume_nm)}, but the model was trained on "
            f"{_nm(self.model_nm)} (z, y, x), and a network knows structures by their size in "
            f"voxels. {cure}, or apply it all the same with --ignore-voxel-size."
        )


class ModelError(TilenetError):
    """Base of errors about models and their files."""


@dataclasses.dataclass(eq=False)
class InvalidModelFile(ModelError):
    """A file that is not a model of ours, or a broken one."""

    path: str
    problem: str

    def message(self) -> str:
        return (
            f"{self.path}: {self.problem}. A model is a .safetensors file written by "
            "'tilenet train' or tilenet.save_model."
        )


@dataclasses.dataclass(eq=False)
class ModelMismatch(ModelError):
    """A model that cannot be applied as asked."""

    model: str
    problem: str
    cure: str

    def message(self) -> str:
        return f"{self.model}: {self.problem}. {self.cure}"


@dataclasses.dataclass(eq=False)
class NonFiniteOutput(ModelError):
    """The network's output is NaN or infinite: numbers overflowed on the way."""

    box: str
    count: int
    precision: str

    def message(self) -> str:
        return (
            f"The network gives {self.count} NaN or infinite values in {self.box} at precision "
            f"{self.precision}, as they are stored. Check the intensity rule, or take --precision "
            "float32 (and --dtype float32 for scores)."
        )


@dataclasses.dataclass(eq=False)
class TrainingDiverged(TilenetError):
    """The loss or a gradient is not finite."""

    step: int
    loss: float
    norm: float

    def message(self) -> str:
        return (
            f"Training diverged at step {self.step}: loss {self.loss:g}, gradient {self.norm:g}. "
            "Lower --learning-rate, or warm up longer (optimization.warm_up in the recipe)."
        )


@dataclasses.dataclass(eq=False)
class ResumeRefused(TilenetError):
    """An output that was begun under something else than what would continue it."""

    path: str
    differences: Mapping[str, tuple[object, object]]
    reasons: Sequence[str] = ()

    def message(self) -> str:
        lines = [
            f"  {name}: stored {stored!r}, now {now!r}"
            for name, (stored, now) in self.differences.items()
        ]
        here = f"\nHere {', '.join(self.reasons)}." if self.reasons else ""
        return (
            f"{self.path} was begun under something else, and one output must come from one "
            "model, input and numeric plan. These fields differ:\n"
            + "\n".join(lines)
            + here
            + "\nRun it as it was begun, choose another output, or start anew with --overwrite."
        )


class ResourceError(TilenetError):
    """Base of errors about memory and devices."""


@dataclasses.dataclass(eq=False)
class NotEnoughMemory(ResourceError):
    """Even the smallest tile does not fit."""

    needed: int
    available: int
    what: str
    smaller: str = "a smaller --block or --shard, or a smaller network"

    def message(self) -> str:
        return (
            f"{self.what} needs {self.needed / 2**20:,.0f} MiB per worker, but "
            f"{self.available / 2**20:,.0f} MiB are allowed. Allow more with --memory, run fewer "
            f"--workers or --slots, or take {self.smaller}."
        )


@dataclasses.dataclass(eq=False)
class DeviceUnavailable(ResourceError):
    """There is no such device."""

    device: str
    problem: str

    def message(self) -> str:
        cure = "Choose another with --device, for example cpu."
        return f"Device {self.device!r}: {self.problem}. {cure}"


@dataclasses.dataclass(eq=False)
class LibraryUnfit(ResourceError):
    """A library lacks what is needed of it."""

    library: str
    found: str
    allowed: str
    lacking: Sequence[str]

    def message(self) -> str:
        return (
            f"{self.library} {self.found} lacks {', '.join(self.lacking)}. tilenet works with "
            f"{self.library} {self.allowed}: install one of these, for example by pip install "
            f"'{self.library}{self.allowed.replace(' ', '')}'."
        )


@dataclasses.dataclass(eq=False)
class WorkerTooSmall(ResourceError):
    """A worker has less memory than the plan needs."""

    worker: str
    needed: int
    available: int
    cure: str

    def message(self) -> str:
        return (
            f"Worker {self.worker} has {_mib(self.available)} of memory, and the plan needs "
            f"{_mib(self.needed)} of each. {self.cure}"
        )


@dataclasses.dataclass(eq=False)
class WorkerUnfit(ResourceError):
    """A worker is of another kind, or of other versions, than those that the run began with."""

    node: str
    problem: str
    cure: str

    def message(self) -> str:
        return f"Worker on {self.node}: {self.problem}. {self.cure}"


@dataclasses.dataclass(eq=False)
class BlockHung(ResourceError):
    """A block did not end within its time."""

    worker: str
    waited: str
    limit: str

    def message(self) -> str:
        return (
            f"did not end on worker {self.worker} within {self.waited} (--block-timeout "
            f"{self.limit}); that worker is replaced."
        )


@dataclasses.dataclass(eq=False)
class WorkerOverMemory(ResourceError):
    """A worker was ended because it took more memory than it may."""

    worker: str
    used: int
    limit: int

    def message(self) -> str:
        return (
            f"worker {self.worker} was ended because it took {_mib(self.used)} of the "
            f"{_mib(self.limit)} of memory that it may use. Allow more with --memory (where the "
            "workers are started elsewhere, --memory-limit), or run fewer --slots."
        )


@dataclasses.dataclass(eq=False)
class WorkerDied(ResourceError):
    """Workers died while they computed a block."""

    worker: str
    count: int

    def message(self) -> str:
        return (
            f"{self.count} of its workers died while they computed it, the last {self.worker}: "
            "killed from outside (by a batch system, or by the system for lack of memory) or by "
            "a crash."
        )


@dataclasses.dataclass(eq=False)
class WorkersDied(ResourceError):
    """Worker after worker died, and no block was finished."""

    count: int
    last: str
    said: Sequence[str]

    def message(self) -> str:
        head = (
            f"{self.count} workers in a row died or hung and no block was finished, so no more "
            f"are started. The last: {self.last}."
        )
        cure = "Mend the cause and run the same command again; what is stored stays."
        return "\n".join([head, *(f"  {line}" for line in self.said), cure])


@dataclasses.dataclass(eq=False)
class WorkersGone(ResourceError):
    """No worker is left, or none takes blocks, and none comes that does."""

    lack: str
    waited: str
    said: Sequence[str]

    def message(self) -> str:
        head = f"No worker {self.lack}, and none came within {self.waited}."
        cure = "See why, start workers, and run the same command again; what is stored stays."
        return "\n".join([head, *(f"  {line}" for line in self.said), cure])


@dataclasses.dataclass(eq=False)
class WorkersUnfit(ResourceError):
    """Every worker was sent away, for none of them could compute a block."""

    count: int
    why: str

    def message(self) -> str:
        return (
            f"{self.count} workers were sent away and no other is left, so the run ends. Most "
            f"often: {self.why} Mend that, and run the same command again; what is stored stays."
        )


@dataclasses.dataclass(eq=False)
class OutageLasted(ResourceError):
    """Block after block failed and none was finished, for as long as the user waits."""

    count: int
    paused: str
    why: str

    def message(self) -> str:
        return (
            f"{self.count} blocks in a row failed and none was finished, over {self.paused} of "
            f"pauses (--outage-timeout). The last: {self.why} No block is given up: mend the "
            "cause, and run the same command again to compute what is missing."
        )


@dataclasses.dataclass(eq=False)
class SchedulerLost(ResourceError):
    """The Dask scheduler ended, hangs, or is out of reach."""

    address: str

    def message(self) -> str:
        return (
            f"Scheduler {self.address}: the connection to it was lost. Blocks that are stored "
            "stay; once it is back, run the same command again to compute what is missing."
        )


@dataclasses.dataclass(eq=False)
class QueueRefused(ResourceError):
    """A command of the queueing system failed."""

    command: str
    answer: str

    def message(self) -> str:
        return (
            f"{self.command} failed: {self.answer}\nSee what is submitted with "
            "'tilenet cluster show', correct the profile or its options, and run it again."
        )


@dataclasses.dataclass(eq=False)
class JobsNotStarted(ResourceError):
    """No job of the queueing system started in time."""

    system: str
    waited: str
    states: Sequence[str]

    def message(self) -> str:
        head = f"No {self.system} job gave a worker within {self.waited} (--start-timeout)."
        cure = (
            "They were cancelled, and what is stored stays. Wait longer, ask for less (time, "
            "memory, GPUs, another queue), and run the same command again."
        )
        return "\n".join([f"{head} The queue said:", *(f"  {s}" for s in self.states), cure])


@dataclasses.dataclass(eq=False)
class JobsFailed(ResourceError):
    """Job after job ended before it was of use."""

    system: str
    count: int
    last: str
    log: Sequence[str]

    def message(self) -> str:
        head = (
            f"{self.count} {self.system} jobs in a row ended before they were of use, so no more "
            f"are submitted. The last was {self.last}; its log ends:"
        )
        cure = "Mend the cause and run the same command again; what is stored stays."
        return "\n".join([head, *(f"  {line}" for line in self.log), cure])


@dataclasses.dataclass(eq=False)
class BlocksFailed(TilenetError):
    """Some blocks failed after their retries; the others are done."""

    command: str
    failed: Sequence[tuple[str, str]]
    total: int
    stored: bool = True

    def message(self) -> str:
        lines = [f"  {box}: {error}" for box, error in self.failed]
        mend = f"Mend the cause and run the same {self.command} command again"
        if self.stored:
            rest = f"The other blocks are done. {mend}: it computes only what is missing."
        else:
            rest = f"This was the pass before anything is stored. {mend}."
        head = f"{len(self.failed)} of {self.total} blocks failed:"
        return "\n".join([head, *lines, rest])


def one_line(text: object, longest: int | None = 200) -> str:
    """Fold the white space of a text or an error, and cut what is longer; None cuts nothing.

    Parameters
    ----------
    text : object
        An error that says nothing is shown as its type.
    longest : int or None, characters

    Returns
    -------
    str
        One line.
    """
    line = " ".join(str(text).split())
    if isinstance(text, BaseException):
        line = line or type(text).__name__
    return line if longest is None or len(line) <= longest else f"{line[: longest - 3]}..."


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _nm(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:g}" for size in sizes) + " nm"
