"""Copies between host and device, and what is computed there on either side of the network."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tilenet.inference import DeviceIntensity, Transfers, ahead, broken, set_arithmetic, stored
from tilenet.volumes import Intensity

CPU = torch.device("cpu")
every_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
)

#: Every data type that a volume may have.
INPUTS = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
INPUTS += ["float16", "float32", "float64"]


def store(values: npt.NDArray[np.floating[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The rule, in NumPy: probabilities to what is stored."""
    if np.dtype(dtype) == np.uint8:
        values = np.rint(values * 255)
    return np.asarray(values.astype(dtype))


def grey(dtype: str, shape: tuple[int, ...] = (3, 5, 7)) -> npt.NDArray[Any]:
    """Values over the whole range of an integer type, or around 0."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return (rng.standard_normal(shape) * 100).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def same_bits(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    """Equal to the last bit; any NaN is like any other."""
    nan = np.isnan(expected) if expected.dtype.kind == "f" else np.zeros(expected.shape, bool)
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    whole = f"u{expected.dtype.itemsize}"
    equal = np.ascontiguousarray(found).view(whole) == np.ascontiguousarray(expected).view(whole)
    return bool(np.all(np.where(nan, np.isnan(found), equal)))


# -- there and back --------------------------------------------------------------------------------


@every_device
@pytest.mark.parametrize("dtype", INPUTS)
def test_what_goes_up_comes_down_in_its_own_data_type(device: str, dtype: str) -> None:
    transfers, values = Transfers(torch.device(device)), grey(dtype)
    uploaded = transfers.upload(values)
    assert uploaded.device.type == device
    assert uploaded.dtype == torch.from_numpy(values).dtype
    (found,) = transfers.download(uploaded).numpy()
    assert same_bits(found, values)


@every_device
@pytest.mark.parametrize("dtype", INPUTS)
def test_what_went_up_converts_as_numpy_converts(device: str, dtype: str) -> None:
    transfers, values = Transfers(torch.device(device)), grey(dtype, (1000,))
    for wide, expected in ((torch.float32, np.float32), (torch.float64, np.float64)):
        (found,) = transfers.download(transfers.upload(values).to(wide)).numpy()
        assert same_bits(found, values.astype(expected))


@every_device
@pytest.mark.parametrize("cut", ["flipped", "strided", "read-only", "big-endian", "empty"])
def test_arrays_that_pytorch_cannot_share_go_up_too(device: str, cut: str) -> None:
    values = grey("uint16")
    if cut == "flipped":
        values = values[:, ::-1]
    elif cut == "strided":
        values = values[::2, 1:, ::3]
    elif cut == "big-endian":
        values = values.astype(">u2")
    elif cut == "empty":
        values = values[:0]
    else:
        values.flags.writeable = False
    transfers = Transfers(torch.device(device))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = transfers.download(transfers.upload(values)).numpy()
    assert found.shape == values.shape
    assert np.array_equal(found, values)


def test_on_a_cpu_nothing_is_copied() -> None:
    transfers, values = Transfers(CPU), grey("uint8")
    uploaded = transfers.upload(values[1:, ::2])
    assert uploaded.data_ptr() == values[1:, ::2].ctypes.data
    result = torch.ones(3)
    (found,) = transfers.download(result).numpy()
    assert found.ctypes.data == result.data_ptr()


@every_device
def test_several_tensors_come_down_together_in_order(device: str) -> None:
    transfers = Transfers(torch.device(device))
    values = torch.arange(12, device=device).reshape(3, 4).T  # not contiguous
    found, count = transfers.download(values, torch.tensor(5, device=device)).numpy()
    assert found.tolist() == np.arange(12).reshape(3, 4).T.tolist()
    assert count.shape == ()
    assert int(count) == 5


def test_on_a_cpu_nothing_is_taken_ahead() -> None:
    assert Transfers(CPU).device == CPU
    assert Transfers(CPU).depth == 0


@pytest.mark.gpu
def test_a_gpu_has_a_number_however_it_was_named() -> None:
    assert Transfers(torch.device("cuda")).device == torch.device("cuda", 0)
    assert Transfers(torch.device("cuda", 0)).depth > 0


@pytest.mark.gpu
def test_memory_is_not_reused_before_a_copy_has_passed() -> None:
    # Long kernels hold the compute stream back while far more is sent than there are buffers.
    # Every array is overwritten, and every tensor dropped, as soon as it was given away.
    device = torch.device("cuda")
    transfers, size = Transfers(device), 2**20
    slow = torch.ones((4096, 4096), device=device)
    values = np.empty(size, np.uint16)

    def steps() -> Iterator[tuple[int, Any]]:
        for n in range(200):
            values[:] = n
            uploaded = transfers.upload(values)
            values[:] = 60000
            torch.mm(slow, slow)
            yield n, transfers.download(uploaded.to(torch.float32) + n, uploaded)

    for n, pending in ahead(steps(), 20):
        doubled, once = pending.numpy()
        assert (doubled == 2 * n).all()
        assert (once == n).all()


@pytest.mark.gpu
def test_the_host_does_not_wait_for_what_it_sends_and_queues() -> None:
    device = torch.device("cuda")
    transfers, busy = Transfers(device), torch.Event(device)
    slow = torch.ones((8192, 8192), device=device)
    values = np.ones(2**20, np.uint8)
    transfers.download(transfers.upload(values)).numpy()  # page-locked memory is there from now on
    torch.cuda.synchronize()
    for _ in range(50):
        torch.mm(slow, slow)
    busy.record()
    pending = transfers.download(transfers.upload(values) + 1)
    assert not busy.query(), "the kernels before it are still running"
    assert (pending.numpy()[0] == 2).all()
    assert busy.query(), "its own result had to wait for them"


# -- ahead -----------------------------------------------------------------------------------------


@given(st.integers(0, 12), st.integers(0, 5))
def test_ahead_hands_on_all_in_order_and_takes_no_more_than_it_may(count: int, depth: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(count):
            taken.append(n)
            yield n

    found = []
    for n in ahead(items(), depth):
        found.append(n)
        assert len(taken) == min(count, n + 1 + depth)
    assert found == list(range(count))


def test_ahead_of_nothing_holds_nothing() -> None:
    class Slab:
        pass

    made: list[weakref.ref[Slab]] = []

    def slabs() -> Iterator[Slab]:
        for _ in range(4):
            gc.collect()
            assert not any(ref() for ref in made), "the one before is gone before the next is made"
            slab = Slab()
            made.append(weakref.ref(slab))
            yield slab
            del slab

    count = 0
    for slab in ahead(slabs(), 0):
        count += 1
        del slab
    assert count == 4


# -- grey values -----------------------------------------------------------------------------------

RULES = st.builds(
    lambda mean, std, low, width, invert: Intensity(
        mean, std, low, None if low is None or width is None else low + width, invert
    ),
    st.floats(-1e4, 1e5),
    st.floats(1e-3, 1e4),
    st.none() | st.floats(-1e3, 5e4),
    st.none() | st.floats(1e-2, 6e4),
    st.booleans(),
)


def check_intensity(
    values: npt.NDArray[Any], rule: Intensity, device: torch.device, wide: str
) -> None:
    """Compare with the rule as NumPy applies it."""
    before, expected = values.copy(), rule.apply(values, wide)
    on_device = DeviceIntensity(rule, device, torch.float64 if wide == "float64" else torch.float32)
    transfers = Transfers(device)
    (found,) = transfers.download(on_device.apply(transfers.upload(values))).numpy()
    # NumPy clips -0.0 at 0 to -0.0 or 0.0, by version, vector unit and number of limits.
    assert same_bits(found + 0.0, expected + 0.0)
    assert same_bits(values, before), "what was given is left as it is"


@pytest.mark.parametrize("wide", ["float32", "float64"])
@pytest.mark.parametrize("dtype", INPUTS)
@settings(max_examples=30)
@given(data=st.data(), rule=RULES)
def test_grey_values_are_normalised_to_the_same_bits(
    dtype: str, wide: str, data: st.DataObject, rule: Intensity
) -> None:
    shape = data.draw(arrays.array_shapes(max_dims=3, max_side=6))
    check_intensity(data.draw(arrays.arrays(dtype, shape)), rule, CPU, wide)


@every_device
@pytest.mark.parametrize("wide", ["float32", "float64"])
@pytest.mark.parametrize("dtype", INPUTS)
def test_many_grey_values_are_normalised_to_the_same_bits(
    device: str, dtype: str, wide: str
) -> None:
    rules = [Intensity(117.3, 41.7), Intensity.window(20, 190.5, invert=True)]
    for rule in [*rules, Intensity(0.1, 3.0, low=-1.0), Intensity(1e4, 1e3, high=2e4)]:
        check_intensity(grey(dtype, (40, 50, 60)), rule, torch.device(device), wide)


def test_of_the_test_a_product_with_the_reciprocal_is_noticed() -> None:
    # What CUDA makes of a division by a number of Python's.
    rule, values = Intensity(117.3, 41.7), grey("uint8", (1000,))
    reciprocal = (values.astype(np.float32) - np.float32(117.3)) * (1 / np.float32(41.7))
    assert not same_bits(reciprocal, rule.apply(values))


# -- results ---------------------------------------------------------------------------------------


def check_stored(values: npt.NDArray[Any], dtype: str, device: str) -> None:
    """Compare with how NumPy converts."""
    with np.errstate(over="ignore"):
        expected = store(values, dtype)
        transfers = Transfers(torch.device(device))
        found = transfers.download(stored(torch.from_numpy(values).to(device), dtype)).numpy()[0]
        output = np.empty(values.shape, dtype)
        output[...] = found  # as a task does
    assert same_bits(output, expected)


@every_device
@pytest.mark.parametrize("wide", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_probabilities_are_stored_as_the_same_bits(dtype: str, wide: str, device: str) -> None:
    rng = np.random.default_rng(0)
    steps = np.arange(256) / 255
    halves = (np.arange(255) + 0.5) / 255
    near = [np.nextafter(halves.astype(wide), end) for end in (0, 1)]
    tenths = 1 + np.arange(1, 2000) * 2.0**-11 + 2.0**-40  # rounded twice they differ
    values = np.concatenate([steps, halves, *near, rng.random(10**5)]).astype(wide)
    check_stored(values, dtype, device)
    if dtype != "uint8":
        scores = np.concatenate([tenths, -tenths, rng.standard_normal(10**5) * 1e5, [-0.0, 1e-9]])
        check_stored(scores.astype(wide), dtype, device)


def test_halves_go_to_the_even_number() -> None:
    exact = np.array([n + 0.5 for n in range(255)], np.float64)
    values = exact / 255
    kept = values[values * 255 == exact]
    assert len(kept) > 50
    found = stored(torch.from_numpy(kept), "uint8").numpy()
    assert (found % 2 == 0).all()


@every_device
def test_values_that_are_not_finite_are_counted(device: str) -> None:
    values = torch.zeros((4, 5), device=device)
    assert int(broken(values, np.uint8)) == 0
    values[0, 1], values[2, 2], values[3, 3] = torch.nan, torch.inf, -torch.inf
    count = broken(values, np.uint8)
    assert count.shape == ()
    assert count.device.type == device
    assert int(count) == 3
    assert int(broken(values.half(), np.float32)) == 3
    assert int(broken(values[:0], np.uint8)) == 0


# -- arithmetic ------------------------------------------------------------------------------------


@pytest.fixture
def _arithmetic() -> Iterator[None]:
    yield
    set_arithmetic()


@pytest.mark.usefixtures("_arithmetic")
@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_float32_unless_tf32_was_asked_for(tf32: bool) -> None:
    set_arithmetic(tf32=tf32)
    expected = "tf32" if tf32 else "ieee"
    assert torch.backends.cudnn.fp32_precision == expected
    assert torch.backends.cuda.matmul.fp32_precision == expected
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction


@pytest.mark.gpu
@pytest.mark.usefixtures("_arithmetic")
def test_convolutions_of_float32_on_a_gpu_are_not_as_coarse_as_tf32() -> None:
    # TF32 rounds a factor by up to 5e-4 of it. Not the last bit: cuDNN may sum by Winograd's way.
    rng = np.random.default_rng(0)
    x, weight = (torch.from_numpy(rng.random(shape)) for shape in ((1, 64, 60, 60), (64, 64, 3, 3)))
    set_arithmetic()
    found = torch.conv2d(x.float().cuda(), weight.float().cuda()).cpu().double()
    expected = torch.conv2d(x.float().double(), weight.float().double())
    assert ((found - expected).abs() < 3e-6 * expected).all()


def test_what_float16_cannot_hold_is_counted() -> None:
    values = torch.tensor([65504.0, 65519.0, 65521.0, -1e5, 1.0])
    assert int(broken(values, np.float16)) == 2
    assert int(broken(values.double(), np.float16)) == 2
    assert int(broken(values, np.float32)) == 0
