"""What a way to predict is: what runs it, with which settings, and what a user writes for it."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import io
import textwrap
import time
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from benchmarks.cases import Inputs
from benchmarks.memory import give_back
from tilenet.geometry import ZYX, Box, zyx

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tilenet.inference import Model

#: Tokens that are no code.
_LAYOUT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How a contestant cuts a volume."""

    kept: ZYX  # voxels of a tile, window, chunk, block or patch, (z, y, x)
    at_once: int = 1  # how many of them are evaluated at once: the size of a batch, or threads


@dataclass(slots=True)
class Run:
    """What one run took, and the floating-point operations that the network executed."""

    seconds: float = 0.0
    operations: int = 0


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A way to predict a volume."""

    # name, title: as ``--methods`` takes it, and as the table has it.
    name: str
    title: str
    # Predicts, in a process of its own, inputs into the path of a Zarr array of float32 with a
    # setting on a number of cores. The array may hold only the volume's middle.
    run: Callable[[Inputs, str, Setting, int], Run]
    # Gives the setting for inputs and a number of cores; None where it does not take part.
    choose: Callable[[Inputs, int], Setting | None]
    code: tuple[Any, ...]  # functions and classes that a user writes
    package: str | None = None  # what has to be installed
    rest: Callable[[], None] = give_back  # gives memory back after a run, in its process
    finish: Callable[[], None] | None = None  # ends what it has started, in its process

    @property
    def is_installed(self) -> bool:
        return self.package is None or importlib.util.find_spec(self.package) is not None

    def taking(self, setting: Setting) -> Self:
        """Give the same way with a setting that is not its own."""
        name = f"{self.name} {','.join(map(str, setting.kept))} {setting.at_once}"
        return dataclasses.replace(self, name=name, choose=lambda inputs, cores: setting)

    @property
    def lines(self) -> int:
        """Lines that a user writes: no blank ones, no comments, no docstrings, no imports."""
        return sum(count_lines(code) for code in self.code)


@contextlib.contextmanager
def timed(model: Model) -> Iterator[Run]:
    """Time what is done, and count the operations of every evaluation of the network."""
    run, shapes = Run(), []

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        shapes.append(tuple(inputs[0].shape))

    with contextlib.ExitStack() as stack:
        stack.callback(model.network.register_forward_pre_hook(note).remove)
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        start = time.perf_counter()
        yield run
        run.seconds = time.perf_counter() - start
    for batch, _, *sizes in shapes:
        run.operations += batch * model.architecture.evaluation(zyx(sizes)).operations


def middle(shape: ZYX, size: ZYX) -> Box:
    """Give the box of a size in the middle of a volume."""
    start = zyx((n - s) // 2 for n, s in zip(shape, size, strict=True))
    return Box(start, zyx(a + s for a, s in zip(start, size, strict=True)))


def count_lines(code: Any) -> int:
    """Count the lines of a function or a class that hold code."""
    source = textwrap.dedent(inspect.getsource(code))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    held = {
        line
        for token in tokens
        if token.type not in _LAYOUT
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            held -= _range(node)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            held -= _range(node.body[0])
    return len(held)


def _range(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
