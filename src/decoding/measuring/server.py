"""The server of fresh processes; ``processes`` runs it as a program.

It reads requests from a pipe and forks a worker for each. It ends, and ends what it runs, as soon as
the pipe is closed, which also happens when the process that asked is killed.
"""

import ctypes
import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from . import controls, history, races, session, watching  # noqa: F401  imported for the workers

PR_SET_PDEATHSIG = 1  # Linux: the signal that a process gets when its parent dies


def serve(requests, answers):
    """Fork a worker for each request until there are no more.

    Args:
        requests, answers: the two ends of pipes, ``Connection``s.
    """
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    folder = Path(tempfile.mkdtemp(prefix="decoding-"))
    try:
        while True:
            request = requests.recv()
            caches = folder / (request["caches"] or "own")
            caches.mkdir(exist_ok=True)
            worker = os.fork()
            if not worker:
                _work(request, answers, caches)
            with suppress(OSError):  # the worker does it, too: whoever comes first
                os.setpgid(worker, worker)
            code = _wait(worker, requests, wake)
            if request["caches"] is None:
                shutil.rmtree(caches, ignore_errors=True)
            answers.send({"ended": code})
    except (EOFError, BrokenPipeError):
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(worker, requests, wake):
    """Wait for a worker's end and return its exit code; end it if whoever asked is gone.

    Raises:
        EOFError: whoever asked is gone.
    """
    try:
        while True:
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            ready, _, _ = select.select([requests, wake], [], [])
            if wake in ready:
                os.read(wake, 512)
            if requests in ready:  # nobody asks for a second thing before the first is done
                raise EOFError
    finally:
        # The compiler's helpers are in the worker's group, too.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(worker, 0)


def _work(request, answers, caches):
    """Answer a request: the whole life of a worker."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with suppress(OSError):
            os.setpgid(0, 0)
        _die_with_the_server()
        answers.send(_answer(request, partial(_report, answers), caches))
        code = 0
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _answer(request, report, caches):
    """Do what is asked for and return the result, or what went wrong."""
    try:
        os.environ.clear()
        own = {
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
            "TRITON_CACHE_DIR": str(caches / "triton"),
            "TMPDIR": str(caches),
        }
        # Before CUDA starts: later, the allocator has read its setting already.
        os.environ.update(request["environment"] | own | request["settings"])
        tempfile.tempdir = None
        sys.path[:] = request["search_path"]
        os.chdir(request["folder"])
        task, arguments = pickle.loads(request["call"])
        return {"result": task(report, **arguments)}
    except BaseException as error:  # also SystemExit and KeyboardInterrupt: the asker must know
        return {"failed": f"{type(error).__name__}: {error}"}


def _report(answers, done, total):
    answers.send({"done": done, "total": total})


def _die_with_the_server():
    """Have the kernel end this worker if the server is killed."""
    server = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it died in the meantime
        os._exit(1)


if __name__ == "__main__":
    serve(
        Connection(int(sys.argv[1]), writable=False), Connection(int(sys.argv[2]), readable=False)
    )
