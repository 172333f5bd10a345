"""A network fed slab by slab along one axis: nothing is computed twice, and memory is bounded.

A valid convolution keeps the last ``k - 1`` planes of its input, a pooling those that do not fill
a window yet, an up-convolution none. Each skip connection is a queue: it drops its crop once, then
hands over as many planes as arrive from below. Fed with the whole input, a stream gives exactly
the planes of one evaluation, and computes every plane of every feature once.

Shapes: S planes along the stream axis; A, B the other axes (A alone where a planar network is fed
along y or x, one section at a time); F features. Features come last in memory, so that a slab is
one piece of memory, and oneDNN computes fastest (measured).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tilenet.inference.torch_names import onednn_convolution
from tilenet.inference.unet import UNet
from tilenet.networks import Layer, slabs


class StreamedNetwork:
    """A network prepared for being fed along one axis.

    Parameters
    ----------
    network : UNet
        On its device and in the precision to compute in. Its weights are copied.
    axis : int
        The stream axis: 0, 1 or 2 for z, y or x. A planar network that is fed along y or x takes
        one section at a time.
    """

    def __init__(self, network: UNet, axis: int) -> None:
        architecture = network.architecture
        self.architecture, self.axis = architecture, axis
        #: True where it takes one section at a time.
        self.by_section = architecture.is_planar and axis > 0
        others = (n for n in range(3) if n != axis and not (self.by_section and n == 0))
        #: Spatial axes in the order of the features: the stream axis, then the others.
        self.order = (axis, *others)
        self.layers = [_prepare(network, layer, self.order) for layer in architecture.layers()]

    def evaluate(
        self, load: Callable[[slice], Tensor], size: int, slab: int | None
    ) -> Iterator[Tensor]:
        stream = Stream(self)
        for piece in slabs(self.architecture.laws[self.axis], size, slab or size):
            scores = stream.feed(load(piece))
            if scores is not None:
                yield scores
            del scores  # not to be held while the next ones are computed


class _Prepared:
    # A layer in the order of the features: its kernel, its weights and how to apply them.

    def __init__(self, layer: Layer, kernel: tuple[int, ...]) -> None:
        self.layer, self.kernel = layer, kernel
        self.weight = self.bias = torch.empty(0)

    def convolve(self, x: Tensor) -> Tensor:
        x, none, one = _image(x), [0] * len(self.kernel), [1] * len(self.kernel)
        if x.device.type == "cpu" and x.dtype == torch.float32 and onednn_convolution is not None:
            # PyTorch itself takes slabs of a few planes to a kernel that unfolds them into memory
            # and is 3 to 7 times slower (measured).
            y = onednn_convolution(x, self.weight, self.bias, none, one, one, 1)
        elif len(self.kernel) == 2:
            y = torch.conv2d(x, self.weight, self.bias)
        else:
            y = torch.conv3d(x, self.weight, self.bias)
        return _features(y)

    def rectify(self, x: Tensor, out: Tensor) -> Tensor:
        # The ReLU writes where the next convolution reads: no pass over memory of its own.
        return torch.clamp_min(x, 0, out=out)

    def upsample(self, x: Tensor, out: Tensor) -> None:
        # Windows do not overlap: a matrix product, and its columns go to their places.
        values = functional.linear(x, self.weight, self.bias)
        values = values.view(*x.shape[:-1], *self.kernel, self.layer.outputs)
        # (S, A, B, s, a, b, F) -> (S, s, A, a, B, b, F)
        axes = len(self.kernel)
        mixed = [n for axis in range(axes) for n in (axis, axes + axis)]
        values = values.permute(*mixed, 2 * axes)
        out.view(values.shape).copy_(values)


def _prepare(network: UNet, layer: Layer, order: tuple[int, ...]) -> _Prepared:
    prepared = _Prepared(layer, tuple(layer.kernel[n] for n in order))
    if layer.kind == "pool":
        return prepared
    module = network.layers[layer.key]
    weight, bias = module.get_parameter("weight").detach(), module.get_parameter("bias").detach()
    if network.architecture.is_planar:
        weight = weight.unsqueeze(2)  # the kernel's z
    left_out = (2 + n for n in range(3) if n not in order)
    weight = weight.permute(0, 1, *left_out, *(2 + n for n in order)).flatten(2)
    if layer.kind == "up":  # (inputs, outputs, kernel) -> (kernel x outputs, inputs)
        weight = weight.permute(2, 1, 0).flatten(0, 1)
        bias = bias.repeat(math.prod(prepared.kernel))
    elif layer.kind == "head":
        weight = weight.flatten(1)
    else:  # channels last in memory, so that oneDNN reorders less for every slab
        weight = weight.reshape(layer.outputs, layer.inputs, *prepared.kernel)
        weight = weight.movedim(1, -1).contiguous().movedim(-1, 1)
    prepared.weight, prepared.bias = weight, bias
    return prepared


class Stream:
    """One evaluation in progress.

    Parameters
    ----------
    streamed : StreamedNetwork
    """

    def __init__(self, streamed: StreamedNetwork) -> None:
        architecture, self._order = streamed.architecture, streamed.order
        self._down: list[list[_Convolution]] = []
        self._merge: list[list[_Convolution]] = []
        self._pools: list[_Pooling] = []
        self._ups: list[_Prepared] = []
        before: str | None = None
        for prepared in streamed.layers:
            kind = prepared.layer.kind
            path = self._merge if self._ups else self._down
            if kind == "pool":
                self._pools.append(_Pooling(prepared))
            elif kind == "up":
                self._ups.append(prepared)
            elif kind == "head":
                self._head = prepared
            elif before == "conv":
                path[-1].append(_Convolution(prepared))
            else:  # the first of its level
                path.append([_Convolution(prepared)])
            before = kind
        self._skips = [
            _Skip(tuple(architecture.laws[n].crop(level) for n in streamed.order))
            for level in range(architecture.depth)
        ]

    def feed(self, x: Tensor) -> Tensor | None:
        """Take the next planes of the input."""
        sections = len(self._order) == 2
        inside = x[:, 0].movedim(0, -1) if sections else x.movedim(0, -1)
        shift = -1 if sections else 0
        inside = inside.permute(*(n + shift for n in self._order), -1)
        features = self._contract(inside)
        features = None if features is None else self._expand(features)
        if features is None:
            return None
        scores = functional.linear(features, self._head.weight, self._head.bias)
        back = [self._order.index(n) for n in sorted(self._order)]
        scores = scores.permute(-1, *back)
        return scores.unsqueeze(1) if sections else scores

    def _contract(self, x: Tensor) -> Tensor | None:
        for level, convolutions in enumerate(self._down):
            found = _chain(convolutions, _filled(convolutions[0], x))
            if found is not None and level < len(self._pools):
                self._skips[level].push(found)
                found = self._pools[level].take(found)
            if found is None:
                return None
            x = found
        return x

    def _expand(self, x: Tensor) -> Tensor | None:
        levels = reversed(range(len(self._skips)))
        for level, up, convolutions in zip(levels, self._ups, self._merge, strict=True):
            found = _chain(convolutions, _joined(convolutions[0], x, up, self._skips[level]))
            if found is None:
                return None
            x = found
        return x


class _Convolution:
    # A convolution that keeps the last k - 1 planes of what it was given.

    def __init__(self, prepared: _Prepared) -> None:
        self.prepared = prepared
        self.keeps = prepared.kernel[0] - 1
        self.held: Tensor | None = None

    def room(self, shape: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        # A buffer that begins with what is held, and the part of it that new planes go to.
        held = 0 if self.held is None else len(self.held)
        buffer = like.new_empty((held + shape[0], *shape[1:], self.prepared.layer.inputs))
        if self.held is not None:
            buffer[:held] = self.held
        return buffer, buffer[held:]

    def __call__(self, buffer: Tensor) -> Tensor | None:
        if self.keeps:
            self.held = buffer[-self.keeps :].clone()
        return self.prepared.convolve(buffer) if len(buffer) > self.keeps else None


def _chain(convolutions: Sequence[_Convolution], buffer: Tensor) -> Tensor | None:
    for convolution, following in zip(convolutions, (*convolutions[1:], None), strict=True):
        found = convolution(buffer)
        if found is None:
            return None
        if following is None:
            return convolution.prepared.rectify(found, found)
        buffer, room = following.room(found.shape[:-1], found)
        convolution.prepared.rectify(found, room)
        del found  # not to be held while the next one is computed
    raise AssertionError("a level has one convolution at least")


def _filled(convolution: _Convolution, x: Tensor) -> Tensor:
    buffer, room = convolution.room(x.shape[:-1], x)
    room.copy_(x)
    return buffer


def _joined(convolution: _Convolution, x: Tensor, up: _Prepared, skip: _Skip) -> Tensor:
    # The up-sampled features and the skip are concatenated by writing them side by side.
    shape = [n * k for n, k in zip(x.shape[:-1], up.kernel, strict=True)]
    buffer, room = convolution.room(shape, x)
    up.upsample(x, room[..., : up.layer.outputs])
    skip.fill(room[..., up.layer.outputs :])
    return buffer


class _Pooling:
    # A max-pooling that keeps the planes that do not fill a window.

    def __init__(self, prepared: _Prepared) -> None:
        self.window = prepared.kernel
        self.rest: Tensor | None = None

    def take(self, x: Tensor) -> Tensor | None:
        x = x if self.rest is None else torch.cat([self.rest, x])
        whole = len(x) // self.window[0] * self.window[0]
        self.rest = x[whole:].clone() if whole < len(x) else None
        if not whole:
            return None
        pool = functional.max_pool2d if len(self.window) == 2 else functional.max_pool3d
        return _features(pool(_image(x[:whole]), self.window))


class _Skip:
    # A queue of planes, cropped in the other axes.

    def __init__(self, crop: tuple[int, ...]) -> None:
        self.drop, self.crop = crop[0], crop[1:]
        self.pieces: deque[Tensor] = deque()

    def push(self, x: Tensor) -> None:
        inner = (slice(c, n - c) for c, n in zip(self.crop, x.shape[1:-1], strict=True))
        dropped = min(self.drop, len(x))
        self.drop -= dropped
        if dropped < len(x):
            self.pieces.append(x[(slice(dropped, None), *inner)])

    def fill(self, room: Tensor) -> None:
        while len(room):
            piece = self.pieces.popleft()
            count = min(len(piece), len(room))
            room[:count] = piece[:count]
            room = room[count:]
            if count < len(piece):
                self.pieces.appendleft(piece[count:])


def _image(x: Tensor) -> Tensor:
    # As convolutions take it, (1, F, S, A, B), without moving anything in memory. The batch comes
    # first: its stride is looked at when PyTorch tells whether features are last.
    return x.unsqueeze(0).movedim(-1, 1)


def _features(x: Tensor) -> Tensor:
    return x[0].movedim(0, -1).contiguous()
