"""Errors of a task on their way from a worker to the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilenet.errors import TilenetError


@dataclass(frozen=True)
class Portable:
    """A task whose errors arrive as what they are.

    Dask sends an error with its causes and their tracebacks, and where any of these cannot be read
    (errors of zarr-python cannot) only the text arrives, as a bare ``Exception``: what kind of
    error it was decides whether it may pass, and whether it is the worker's own.

    Parameters
    ----------
    task : callable
        Takes a box and returns a report.
    """

    task: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        """Run the task."""
        try:
            return self.task(*arguments)
        except Exception as error:
            found = portable(error)
        raise found


def portable(error: Exception) -> Exception:
    """Give an error that can be sent: without causes, and of a plain type where its own cannot.

    Parameters
    ----------
    error : Exception
        Any.

    Returns
    -------
    Exception
        The same where it is one of ours or of Python's, else one with its text.
    """
    error.__cause__ = error.__context__ = None
    if isinstance(error, TilenetError) or type(error).__module__ == "builtins":
        return error
    # Types of other libraries fail to be read in their own ways, or are not installed there.
    text = f"{type(error).__name__}: {error}"
    for plain in (OSError, MemoryError, ImportError, LookupError, ValueError, TypeError):
        if isinstance(error, plain):
            return plain(text)
    return RuntimeError(text)
