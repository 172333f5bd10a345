"""tilenet beside its peers: one volume, one network, all cores, in turns.

``python -m benchmarks.bench_peers [--quick] [--cases ...] [--methods ...] [--json FILE]``; what the
figures mean stands in ``benchmarks/README.md``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.cases import RACE, RACE_QUICK, Case
from benchmarks.machine import machine
from pipelines.cluster import default_workers
from pipelines.options.axis_values import AxisValues
from tilenet.geometry import ZYX

if TYPE_CHECKING:
    from benchmarks.peers.contestant import Contestant
    from benchmarks.peers.figures import Record

#: Runs of every contestant but the slow ones, such that all takes less than half an hour.
REPEATS = {"2d-16": 3, "2d-64": 2, "3d-16": 2}

NAMES = [case.name for case in (*RACE, *RACE_QUICK)]


@click.command()
@click.option("--quick", is_flag=True, help="Tiny networks, once: checks, and no figures.")
@click.option("--cases", type=click.Choice(NAMES), multiple=True, help="Only these; repeatable.")
@click.option("--methods", multiple=True, help="Only these beside tilenet; repeatable.")
@click.option(
    "--cut", "cuts", type=(AxisValues(int, "z,y,x"), int), multiple=True,
    help="Instead of its own setting, each of the methods takes these: Z,Y,X AT-ONCE; repeatable.",
)  # fmt: skip
@click.option("--repeats", type=click.IntRange(1), help="Per method; 3 or 2, quick 1.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write all figures here.")
def main(
    quick: bool,
    cases: Sequence[str],
    methods: Sequence[str],
    cuts: Sequence[tuple[ZYX, int]],
    repeats: int | None,
    path: Path | None,
) -> None:
    """Race tilenet against other ways to predict a volume."""
    # Here, because every process that is started imports this module: those of tilenet's cluster
    # shall hold no more than those of a user.
    from benchmarks.peers.figures import print_tables
    from benchmarks.yardsticks import check

    chosen: tuple[Case, ...] = RACE_QUICK if quick else RACE
    if cases:
        chosen = tuple(case for case in (*RACE, *RACE_QUICK) if case.name in cases)
    cores = min(2, default_workers(1)) if quick else default_workers(1)
    contestants = varied(field(methods), cuts)
    # A process keeps what memory it once had, so each case has processes of its own.
    groups = [chosen] if quick else [(case,) for case in chosen]
    records = [r for group in groups for r in race(group, contestants, cores, repeats)]
    print_tables(records)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {"machine": machine(cores), "cases": records}
        path.write_text(json.dumps(values, indent=2) + "\n")
    # Last: what took half an hour is not thrown away for one figure.
    for case in records:
        found = case["figures"]
        check({**found["tilenet"], "one_pass_error": case["one_pass_error"], **found})


def field(methods: Sequence[str]) -> list[Contestant]:
    """Choose the contestants whose packages are there, tilenet always among them."""
    from benchmarks.peers.field import CONTESTANTS

    names = [contestant.name for contestant in CONTESTANTS]
    for method in methods:
        if method not in names:
            known = ", ".join(names)
            raise click.BadParameter(f"{method} is none of {known}", param_hint="--methods")
    wanted = [c for c in CONTESTANTS if not methods or c.name in (*methods, "tilenet")]
    for contestant in wanted:
        if not contestant.is_installed:
            cure = f"the extra 'peers' installs {contestant.package}"
            _note(f"{contestant.title} is left out: {cure}")
    return [contestant for contestant in wanted if contestant.is_installed]


def varied(contestants: Sequence[Contestant], cuts: Sequence[tuple[ZYX, int]]) -> list[Contestant]:
    """Enter each contestant but tilenet once per setting, if settings are given."""
    from benchmarks.peers.contestant import Setting

    settings = [Setting(*cut) for cut in cuts]
    entered = [c for c in contestants if not settings or c.name.startswith("tilenet")]
    for contestant in contestants:
        if contestant not in entered:
            entered.extend(contestant.taking(setting) for setting in settings)
    return entered


def race(
    cases: Sequence[Case], contestants: Sequence[Contestant], cores: int, repeats: int | None
) -> list[Record]:
    """Race cases in the same processes."""
    from benchmarks.peers.figures import record
    from benchmarks.peers.race import Race, opened

    records = []
    with (
        tempfile.TemporaryDirectory(prefix="tilenet-race-") as folder,
        opened(contestants, cores) as pools,
    ):
        for case in cases:
            runs = repeats or REPEATS.get(case.name, 1)
            records.append(record(case, Race(Path(folder), cores, _note).run(case, pools, runs)))
    return records


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
