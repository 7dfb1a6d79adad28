"""The server of fresh processes: real processes, and what becomes of them when something ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from decoding.measuring import MeasurementError, processes
from decoding.measuring.processes import KEPT_OUT, run_fresh

#: A parent that has a worker do nothing for long, with a child of the worker's own.
PARENT = """
from waiting import wait
from decoding.measuring.processes import run_fresh
try:
    run_fresh(wait, "Waiting", folder={folder!r})
except KeyboardInterrupt:
    raise SystemExit(3)
"""
WAITING = """
import os, subprocess, sys, time
from pathlib import Path

def wait(report, folder):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    (Path(folder) / "pids.part").write_text(f"{os.getpid()} {os.getppid()} {child.pid}")
    (Path(folder) / "pids.part").rename(Path(folder) / "pids")
    time.sleep(300)
"""


def alive(pid):
    """Whether a process runs (one that has ended and that nobody has asked after does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def until(true, seconds=60):
    """Wait until ``true()`` holds; return whether it does."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


@pytest.fixture
def waiting(tmp_path):
    """A parent whose worker waits, and the processes: the worker, the server, the worker's child."""
    (tmp_path / "waiting.py").write_text(textwrap.dedent(WAITING))
    (tmp_path / "parent.py").write_text(PARENT.format(folder=str(tmp_path)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = os.environ | {"PYTHONPATH": str(processes.PACKAGE.parent), "TMPDIR": str(scratch)}
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pids = []
    try:
        assert until((tmp_path / "pids").exists), "the worker did not start"
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        yield parent, pids, scratch
    finally:
        for pid in [parent.pid, *pids]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        parent.wait()


@pytest.mark.skipif(not Path("/proc").exists(), reason="Linux only")
class TestEnds:
    @pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
    def test_whatever_ends_the_parent_ends_its_workers(self, waiting, how):
        parent, pids, scratch = waiting
        assert all(map(alive, pids))
        os.kill(parent.pid, getattr(signal, how))
        code = parent.wait(timeout=30)
        assert code == (3 if how == "SIGINT" else -getattr(signal, how))
        assert until(lambda: not any(map(alive, pids)), 10), [alive(pid) for pid in pids]
        assert until(lambda: not list(scratch.glob("decoding-*")), 10)

    def test_a_killed_server_takes_its_worker_along_and_the_parent_goes_on(self, waiting):
        parent, (worker, server, _), _ = waiting
        os.kill(server, signal.SIGKILL)
        assert until(lambda: not alive(worker), 10)
        assert parent.wait(timeout=30) == 1  # a MeasurementError, not a wait for ever


def whereabouts(report):
    """A task: return its process, that of the server, and its process group."""
    return os.getpid(), os.getppid(), os.getpgid(0)


def environment(report):
    """A task: return its environment."""
    return dict(os.environ)


def die(report):
    """A task whose process ends without a word."""
    os._exit(7)


class TestServer:
    def test_it_serves_one_after_the_other_each_in_a_group_of_its_own(self):
        (one, server, group), (other, same, _) = (
            run_fresh(whereabouts, "Asking") for _ in range(2)
        )
        assert one != other and one == group and server == same != os.getpid()

    def test_it_survives_a_worker_that_dies(self):
        server = run_fresh(whereabouts, "Asking")[1]
        with pytest.raises(MeasurementError, match="exit code 7"):
            run_fresh(die, "Trying")
        assert run_fresh(whereabouts, "Asking")[1] == server

    def test_edited_code_is_run_as_edited(self, monkeypatch):
        server = run_fresh(whereabouts, "Asking")[1]
        monkeypatch.setattr(processes, "code_hash", lambda: "edited")
        assert run_fresh(whereabouts, "Asking")[1] != server

    def test_an_edit_changes_the_hash(self, monkeypatch, tmp_path):
        (tmp_path / "loops").mkdir()
        (tmp_path / "loops" / "naive.py").write_text("a = 1")
        monkeypatch.setattr(processes, "PACKAGE", tmp_path)
        before = processes.code_hash()
        (tmp_path / "loops" / "naive.py").write_text("a = 2")
        assert processes.code_hash() != before

    @pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "ANY_OTHER"])
    def test_a_changed_variable_reaches_the_worker(self, monkeypatch, name):
        monkeypatch.setenv(name, "3")
        assert run_fresh(environment, "Asking")[name] == "3"
        monkeypatch.delenv(name)
        assert name not in run_fresh(environment, "Asking")

    def test_what_would_change_numbers_reaches_no_worker_unasked(self, monkeypatch):
        names = [name + "X" if name.endswith("_") else name for name in KEPT_OUT]
        for name in names:
            monkeypatch.setenv(name, "1")
        found = run_fresh(environment, "Asking")
        assert not set(names) & set(found)
        asked = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
        assert run_fresh(environment, "Asking", asked)["PYTORCH_ALLOC_CONF"] == asked.popitem()[1]
