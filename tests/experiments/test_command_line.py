"""What commands do when they are asked to stop."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from experiments.command_line import Stopped, stop_requests
from tests.system.tiny import ROOT

WAITS = """
import sys, time
from experiments.command_line import Stopped, stop_requests

try:
    with stop_requests():
        print("ready", flush=True)
        time.sleep(60)
except Stopped:
    print("for nobody", flush=True)
    sys.exit(7)
"""


def test_a_terminal_that_closes_is_a_request_to_stop_which_lines_for_it_do_not_disturb():
    terminal, its_end = pty.openpty()
    # In a session of its own, so that no hang-up reaches it but the one sent here.
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS], cwd=ROOT, stdout=its_end, stderr=its_end, start_new_session=True
    )
    os.close(its_end)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 7


def test_without_a_terminal_to_close_nothing_is_redirected_and_nohup_is_respected(capfd):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests():
            signal.raise_signal(signal.SIGHUP)
        with stop_requests(), pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
        print("still here")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert capfd.readouterr().out == "still here\n"
