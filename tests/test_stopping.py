"""A terminal that closes; the other signals are in test_blockwise and test_faults."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from pipelines.stopping import Stopped, check_stop, stop_on_signals
from tests.support.runs import environment, in_terminal

# The signal is held back, so that the terminal refuses a line first; without that it is chance.
SCRIPT = """\
import signal, sys, time
from pipelines.stopping import Stopped, stop_on_signals
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
said = open(sys.argv[1], "w")
try:
    with stop_on_signals():
        while True:
            print("going on", flush=True)
            time.sleep(0.01)
except Stopped as error:
    print("heard by nobody", flush=True)
    print(error.signal, file=said, flush=True)
"""


def test_a_line_that_a_closed_terminal_refuses_is_a_request_to_stop(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "said")]
    pid, terminal = in_terminal(command, environment(), tmp_path)
    assert b"going on" in os.read(terminal, 100)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (tmp_path / "said").read_text() == "1\n"


def test_an_error_of_a_disk_is_no_closed_terminal() -> None:
    with pytest.raises(OSError, match="a disk"), stop_on_signals():
        raise OSError(errno.EIO, "a disk fails")


def test_the_end_of_a_context_within_another_leaves_the_outer_request() -> None:
    with stop_on_signals() as outer:
        with stop_on_signals():
            pass
        outer.signal = signal.SIGTERM
        with pytest.raises(Stopped):
            check_stop()
