"""Reports of blocks that are kept on disk: a table per block would grow with the volume."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Iterator
from typing import IO, Any, Self

import numpy as np

from tilenet.errors import InvalidData
from tilenet.worker import BlockReport


class SpooledReports:
    """Reports in a temporary file, which has no name and so outlives nobody.

    Memory holds 32 bytes of a report. They are given in the order of their blocks and not in that
    of arrival, as often as they are asked for.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by its own exit)
        # First voxel of the block, (z, y, x), and where its report begins; report after report.
        self._index = array("q")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._index) // 4

    def append(self, report: BlockReport) -> None:
        """Keep a report, of a block that has none yet."""
        try:
            begin = self._file.seek(0, 2)
            pickle.dump(report, self._file, protocol=pickle.HIGHEST_PROTOCOL)
        except OSError as error:
            problem = f"cannot hold what the blocks report: {error.strerror or error}"
            cure = "Free some space there, or name another folder by TMPDIR."
            raise InvalidData(f"Folder {tempfile.gettempdir()}", problem, cure) from error
        self._index.extend((*report.box.start, begin))

    def __iter__(self) -> Iterator[BlockReport]:
        z, y, x, begin = np.array(self._index, np.int64).reshape(-1, 4).T
        for offset in begin[np.lexsort((x, y, z))]:
            self._file.seek(int(offset))
            report: BlockReport = pickle.load(self._file)  # noqa: S301  (we wrote it)
            yield report

    @property
    def values(self) -> SpooledValues:
        """What the blocks reported, in their order."""
        return SpooledValues(self)


class SpooledValues:
    """The values of reports on disk, read anew whenever they are gone through."""

    def __init__(self, reports: SpooledReports) -> None:
        self._reports = reports

    def __iter__(self) -> Iterator[Any]:
        return (report.value for report in self._reports)
