"""Runs cases in a process of its own, whose death, silence or memory is put down to the case."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import resource
import shutil
import tempfile
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import click

from tests.fuzz.seeds import make_seeds, ours
from tests.fuzz.targets import Target, begin_prediction, ingest, label, weigh
from tilenet.errors import TilenetError

#: Bytes that a case may have mapped, and keep resident, beyond what sound files need.
MAPPED, RESIDENT = 2**30, 2**28

#: Looks, and seconds between two, after which a silent worker hangs. Looks are counted, not time:
#: a machine may stop all of this for a while.
LOOKS, LOOK_SECONDS = 120, 0.25

_libc = ctypes.CDLL(None)

#: Characters of a message that a person still reads.
MESSAGE = 20_000


@dataclass(frozen=True)
class Defect:
    """A case that was neither read nor refused."""

    target: str
    number: int
    problem: str


@dataclass
class Tally:
    """What became of the cases."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    defects: list[Defect] = field(default_factory=list)
    tell: Callable[[str], None] = click.echo

    @property
    def cases(self) -> int:
        """How many there were."""
        return self.read.total() + self.refused.total() + len(self.defects)

    def count(self, number: int, name: str, said: str | None) -> None:
        """Take up what became of a case."""
        if said is None:
            self.read[name] += 1
        elif said == "":
            self.refused[name] += 1
        else:
            self.defects.append(Defect(name, number, said))
            self.tell(f"DEFECT {name} (--first {number}): {said}")


class Sandbox:
    """A folder of sound files, and one beside it that nothing may change."""

    def __init__(self, top: Path) -> None:
        self.folder, self.outside = top / "sandbox", top / "outside"
        self.folder.mkdir()
        self.outside.mkdir()
        (self.outside / "notes.txt").write_text("do not touch")
        ours(self.outside / "secret.zarr")
        make_seeds(self.folder)
        begin_prediction(self.folder)
        label(self.folder / "labels.zarr")
        weigh(self.folder / "weights.zarr")
        ingest(self.folder / "ingested.zarr")
        empty = top / "elsewhere"
        empty.mkdir()
        os.chdir(empty)
        self._top = top
        self._sound: dict[str, dict[Path, bytes]] = defaultdict(dict)
        for path in [p for p in self.folder.rglob("*") if p.is_file()]:
            self._sound[path.relative_to(self.folder).parts[0]][path] = path.read_bytes()
        self._around = self._look_around()

    def _look_around(self) -> list[tuple[str, int, int]]:
        found = []
        for folder, below, files in os.walk(self._top):
            below[:] = [name for name in below if Path(folder, name) != self.folder]
            found += [os.path.join(folder, name) for name in (*below, *files)]  # noqa: PTH118
        states = ((path, os.lstat(path)) for path in found)
        return sorted((path, state.st_size, state.st_mtime_ns) for path, state in states)

    def changed_outside(self) -> list[str]:
        """Name what outside of the sandbox is new, gone or other than it was."""
        before, self._around = self._around, self._look_around()
        return sorted({path for path, *_ in set(before) ^ set(self._around)})

    def restore(self, root: str) -> None:
        """Make everything below a root sound again."""
        for path in self.folder.glob("new-*"):
            shutil.rmtree(path)
        top = self.folder / root
        if top.is_dir() and not top.is_symlink():
            shutil.rmtree(top)
        for path, data in self._sound[root].items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(data)


def catalogue(module: str) -> dict[str, Target]:
    """Give the targets of a module, by name; they are not sent to a process, but imported there."""
    found: dict[str, Target] = importlib.import_module(module).TARGETS
    return found


def targets_of(cases: int, targets: Mapping[str, Target]) -> Iterator[str]:
    """Name the target of each case, by their weights."""
    wheel = [name for name, target in targets.items() for _ in range(target.weight)]
    Random(0).shuffle(wheel)
    return (wheel[i % len(wheel)] for i in range(cases))


def outcome_of(target: Target, path: Path) -> str | None:
    """Run a target: None where it was read, "" where it was refused, else what is wrong."""
    try:
        target.run(path)
    except (TilenetError, click.ClickException) as error:
        length = len(str(error))
        return f"a message of {length} characters" if length > MESSAGE else ""
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "tests" not in f.filename]
        places = [place for place in places if not place.startswith(("sync.py", "common.py"))]
        text = " ".join(str(error).split())[:200]
        return f"{type(error).__name__}: {text} ({' < '.join(reversed(places[-8:]))})"
    return None


def run_case(sandbox: Sandbox, target: Target, rng: Random) -> str | None:
    """Damage, read, look around, and make sound again."""
    target.damage(sandbox.folder, rng)
    before = _new_peak()
    outcome = outcome_of(target, sandbox.folder / target.root)
    grown = _peak() - before
    if grown > RESIDENT:
        outcome = f"{grown >> 20} MiB for a file of a few thousand bytes"
    changed = sandbox.changed_outside()
    if changed:
        outcome = f"changed something outside of its folder: {changed}"
    sandbox.restore(target.root)
    return outcome


def _new_peak() -> int:
    # From here on: the peak of an earlier case would hide this one's, and so would memory that was
    # freed and is kept, as workers keep it.
    _libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    # Not from getrusage: there a process begins with the peak of the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MAPPED
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def work(pipe: Connection, top: str, cases: list[tuple[int, str]], seed: int, module: str) -> None:
    """What the worker process does: say of each case how it went."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        sandbox, targets = Sandbox(Path(top)), catalogue(module)
        unsound = _check_sound(sandbox, targets)
        pipe.send(unsound)
        if unsound is not None:
            return
        _limit_memory()
        for number, name in cases:
            rng = Random(f"{seed}/{number}/{name}")
            pipe.send(run_case(sandbox, targets[name], rng))


def _check_sound(sandbox: Sandbox, targets: Mapping[str, Target]) -> str | None:
    for name, target in targets.items():
        outcome = outcome_of(target, sandbox.folder / target.root)
        if outcome is not None:
            return f"{name} is not sound: {outcome or 'refused'}"
        sandbox.restore(target.root)
    return None


def _listen(pipe: Connection, process: Any, looks: int) -> tuple[bool, Any]:
    # What the worker said; or False, and why it said nothing.
    for _ in range(looks):
        if pipe.poll(LOOK_SECONDS):
            with contextlib.suppress(EOFError, ConnectionError):
                return True, pipe.recv()
            process.join()
            return False, f"the process died: exit code {process.exitcode}"
    process.kill()
    process.join()
    return False, f"silent for {looks * LOOK_SECONDS:g} seconds"


def run(
    cases: int, seed: int, first: int = 0, *, module: str = "tests.fuzz.targets", looks: int = LOOKS
) -> Tally:
    """Run cases of a seed; a worker that dies or hangs is replaced."""
    names = enumerate(targets_of(first + cases, catalogue(module)))
    waiting = [(i, name) for i, name in names if i >= first]
    tally, context = Tally(), multiprocessing.get_context("spawn")
    while waiting:
        with tempfile.TemporaryDirectory(prefix="fuzz") as top:
            ours, theirs = context.Pipe()
            arguments = (theirs, top, waiting, seed, module)
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            alive, said = _listen(ours, process, 4 * LOOKS)
            if said is not None:
                raise RuntimeError(f"the worker could not start: {said}")
            while alive and waiting:
                alive, said = _listen(ours, process, looks)
                tally.count(*waiting.pop(0), said)
            process.join()
    return tally
