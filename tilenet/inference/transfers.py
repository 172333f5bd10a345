"""Copies between host and device that overlap computing, with one interface for CPU and CUDA.

On a GPU every copy passes through page-locked memory on a stream of its own. The host waits only
for results that it asks for; kernels wait, on the device, for the values that they read. On a CPU
nothing is copied at all.

Why memory is not reused too early, read in PyTorch 2.13:

- Page-locked memory comes from PyTorch's caching host allocator. ``copy_(..., non_blocking=True)``
  tells it the stream that it copies on, whichever that is (``copy_kernel_cuda``, ``record_event``);
  a freed buffer is handed out again only after an event on each such stream has passed
  (``CachingHostAllocatorImpl.free``, ``process_events``).
- Device memory belongs to the stream that it was allocated on. What another stream reads is
  announced with ``record_stream``, so that it is reused only after that stream has read it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_T = TypeVar("_T")


class Pending:
    """Results on their way to the host.

    Parameters
    ----------
    tensors : tuple of Tensor, in host memory
    done : torch.cuda.Event or None
        Passes when they have arrived; None when they have already.
    """

    __slots__ = ("_done", "_tensors")

    def __init__(self, tensors: tuple[Tensor, ...], done: torch.cuda.Event | None = None) -> None:
        self._tensors, self._done = tensors, done

    def numpy(self) -> tuple[npt.NDArray[Any], ...]:
        """Wait for these copies, and for nothing else.

        On a GPU they lie in page-locked memory, which is scarce: copy them, and drop them.
        """
        if self._done is not None:
            self._done.synchronize()
        return tuple(tensor.numpy() for tensor in self._tensors)


class Transfers:
    """Copies to and from one device. May be used by several threads at once.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._up = self._down = None
        if device.type == "cuda":
            # "cuda" alone means another device in a thread that has chosen another one.
            index = torch.cuda.current_device() if device.index is None else device.index
            device = torch.device("cuda", index)
            self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        #: The device, with its index.
        self.device = device

    @property
    def depth(self) -> int:
        """Steps that pay as ``depth`` of :func:`ahead`: 2 on a GPU; none on a CPU."""
        # One would do if the host were always quick; the second covers its slow moments. They
        # hold no more features: kernels run in order, and memory is reused in their order.
        return 0 if self._up is None else 2

    def upload(self, values: npt.NDArray[Any]) -> Tensor:
        """Give an array to the device, in its own data type.

        On a CPU the result shares its memory where PyTorch can: leave the array as it is while the
        result lives. On a GPU it is free as soon as this returns. uint16, uint32 and uint64 can be
        moved and converted, but not computed with: convert them first.
        """
        host = _tensor(values)
        if self._up is None:
            return host
        staged = torch.empty(host.shape, dtype=host.dtype, pin_memory=True)
        staged.copy_(host)
        with torch.cuda.stream(self._up):
            uploaded = staged.to(self.device, non_blocking=True)
        compute = torch.cuda.current_stream(self.device)
        compute.wait_stream(self._up)  # on the device; the host goes on
        uploaded.record_stream(compute)
        return uploaded

    def download(self, *values: Tensor) -> Pending:
        """Fetch tensors from the device, without waiting for them.

        They must not be written to any more; on a CPU the result shares their memory.
        """
        if self._down is None:
            return Pending(tuple(value.detach() for value in values))
        values = tuple(value.detach().contiguous() for value in values)
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            fetched = tuple(_fetch(value, self._down) for value in values)
            # To wait for it is to sleep: readers and writers need the core.
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(self._down)
        return Pending(fetched, done)


def ahead(items: Iterable[_T], depth: int) -> Iterator[_T]:
    """Take items some steps before they are handed on.

    With slabs whose evaluation and download were queued, the device has the next ones to compute
    while the host waits for one and stores it.

    Parameters
    ----------
    items : iterable
    depth : int
        Items that are taken beyond the one that is handed on. With 0, nothing is held here.

    Yields
    ------
    object
        The items, in order.
    """
    taken: deque[_T] = deque()
    for item in items:
        taken.append(item)
        del item
        if len(taken) > depth:
            yield taken.popleft()
    while taken:
        yield taken.popleft()


def _tensor(values: npt.NDArray[Any]) -> Tensor:
    # What PyTorch cannot share, or only with a warning, is copied.
    native = values.dtype.newbyteorder("=")
    forward = all(stride >= 0 for stride in values.strides)
    if values.flags.writeable and forward and values.dtype == native:
        return torch.from_numpy(values)
    return torch.from_numpy(np.array(values, native))


def _fetch(value: Tensor, stream: torch.cuda.Stream) -> Tensor:
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    host.copy_(value, non_blocking=True)
    value.record_stream(stream)
    return host
