"""Longer runs: ``python -m tests.fuzz --cases 100000 --seed 7``."""

from __future__ import annotations

import time

import click

from tests.fuzz.engine import run


@click.command()
@click.option("--cases", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--first", type=click.IntRange(0), default=0, help="Number of the first case.")
def main(cases: int, seed: int, first: int) -> None:
    """Damage files in CASES ways, and say what was neither read nor refused."""
    start = time.monotonic()
    tally = run(cases, seed, first)
    for name in sorted(tally.read | tally.refused):
        click.echo(f"{name:24} {tally.read[name]:7} read {tally.refused[name]:7} refused")
    seconds = time.monotonic() - start
    click.echo(f"{tally.cases} cases, {len(tally.defects)} defects, seed {seed}, {seconds:.0f} s")
    raise SystemExit(bool(tally.defects))


if __name__ == "__main__":
    main()
