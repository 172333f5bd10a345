"""Assumed rates, and what a request states instead."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.test_plan import request
from tests.whole.test_imports import modules_after
from tilenet.networks import VALUE_BYTES, UNetArchitecture
from tilenet.planning import Costs, Rates, assumed_rates, make_plan, planning_rate
from tilenet.planning.speeds import ASSUMED_RATES, rates_of


@pytest.mark.parametrize("device", ASSUMED_RATES)
def test_there_is_an_assumed_rate_for_every_precision(device: str) -> None:
    assert ASSUMED_RATES[device].keys() == VALUE_BYTES.keys()
    for precision, rate in ASSUMED_RATES[device].items():
        found = rates_of(request(device=device, precision=precision))
        assert (found.compute, found.measured) == (rate, "")


def test_two_threads_are_a_tenth_to_a_seventh_slower_than_two_workers() -> None:
    one, two = (assumed_rates(request(threads=n)).compute for n in (1, 2))
    assert 1.10 < 2 * one / two < 1.14
    on_gpu = [assumed_rates(request(threads=n, device="cuda")).compute for n in (1, 2)]
    assert on_gpu[0] == on_gpu[1]


def test_what_was_measured_replaces_what_is_assumed() -> None:
    measured = Rates(1.5e11, 2e8, 9e7, 4.0, "a CPU, 2026-05-04")
    assert rates_of(request(rates=measured)) == measured
    assert rates_of(request()) == assumed_rates(request())


@given(st.floats(1e6, 1e16), st.floats(0.98, 1.02))
def test_shapes_are_chosen_by_a_power_of_two_near_the_rate(rate: float, noise: float) -> None:
    def planned(measured: float) -> float:
        return planning_rate(request(rates=Rates(measured, 2e8, 9e7, 4.0)))

    rounded = planned(rate)
    assert 0.7 < rounded / rate < 1.42
    assert rounded.hex().startswith("0x1.0000000000000p"), "a power of two"
    assert planned(rate * noise) / rounded in (0.5, 1.0, 2.0)
    assert planned(rounded * noise) == rounded


def test_rates_load_the_standard_library_only() -> None:
    loaded = {name.split(".")[0] for name in modules_after("import tilenet.planning.speeds")}
    before = {name.split(".")[0] for name in modules_after("pass")}
    assert loaded - before - set(sys.stdlib_module_names) == {"lazy_loader", "tilenet"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_block_lasts_about_as_long_as_it_is_to(device: str) -> None:
    # Whether computing takes most of the time, or reading and writing.
    for network in (UNetArchitecture.planar(64), UNetArchitecture.planar(2, 1)):
        wanted = request(
            (2000, 40000, 40000), network, device=device, memory=2**40, device_memory=10**12
        )
        seconds = Costs(make_plan(wanted)).block_seconds
        assert 100 < seconds < 1200, (network.channels, seconds)
