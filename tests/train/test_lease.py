import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from models.errors import InvalidInput
from train.lease import LOCK_FILE, Lease, is_held

HOLDER = """
import sys, time
from pathlib import Path
from train.lease import Lease
with Lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_owner_is_refused_with_the_first_ones_name(tmp_path):
    folder = tmp_path / "new" / "run"
    with Lease(folder):
        with pytest.raises(InvalidInput, match=rf"run folder .*run is in use by process {os.getpid()} on host "):
            Lease(folder).__enter__()
        with Lease(tmp_path / "other"):
            pass
    with Lease(folder):  # released at the end of the block
        pass


def test_who_only_asks_keeps_nobody_out(tmp_path):
    with Lease(tmp_path):
        pass
    asking = os.open(tmp_path / LOCK_FILE, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
    threading.Timer(0.02, os.close, [asking]).start()
    with Lease(tmp_path):
        assert is_held(tmp_path)


def test_an_error_in_the_block_releases_the_folder(tmp_path):
    with pytest.raises(KeyError), Lease(tmp_path):
        raise KeyError
    with Lease(tmp_path):
        pass


def test_another_process_is_refused_until_the_first_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InvalidInput) as refusal:
            Lease(tmp_path).__enter__()
        assert f"process {holder.pid} on host {socket.gethostname()} since 2" in str(refusal.value)
        assert "\n" not in str(refusal.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert str(holder.pid) in (tmp_path / LOCK_FILE).read_text()  # the text is stale, the lock is not
    with Lease(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()


def test_an_owner_that_has_not_written_its_name_yet_is_still_respected(tmp_path):
    with Lease(tmp_path):
        (tmp_path / LOCK_FILE).write_text("")
        with pytest.raises(InvalidInput, match="in use by another process"):
            Lease(tmp_path).__enter__()
