"""Fresh processes: each measurement runs in one of its own and sends its result back.

They are forked from a server (``server.py``) that has imported the package but never touched CUDA.
Each starts with no CUDA context, no cached memory and nothing compiled, without importing again.
"""

import atexit
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from tqdm import tqdm

from .errors import MeasurementError

PACKAGE = Path(__file__).resolve().parents[1]
#: Variables of the caller's environment that change numbers: a worker gets them only when asked to.
KEPT_OUT = (
    "CUDA_LAUNCH_BLOCKING",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "PYTORCH_NO_",
    "TORCHDYNAMO_",
    "TORCHINDUCTOR_",
    "TORCH_COMPILE_",
    "TORCH_LOGS",
    "TRITON_ALWAYS_COMPILE",
    "TRITON_CACHE",
    "TRITON_INTERPRET",
)
#: Variables that libraries read while they are imported: a change of one needs a new server. The others
#: reach every worker as they are when it is asked for.
READ_AT_IMPORT = ("CUBLAS", "CUDA", "CUDNN", "HF_", "LD_", "MKL_", "NVIDIA_", "OMP_", "PYTHON")
READ_AT_IMPORT += ("PYTORCH_", "TORCH", "TRANSFORMERS_", "TRITON_")
GRACE_S = 5  # for the server to end what it runs and to remove its folder


def run_fresh(task, what, environment=None, *, caches=None, **arguments):
    """Call ``task(report, **arguments)`` in a fresh process and return its result.

    The process has the caller's environment without what would change its numbers (``KEPT_OUT``).
    The progress is shown on stderr. However the caller ends, no process is left behind.

    Args:
        task: a function of a module; its first argument is a function to call now and then with
            how many runs are done and how many there are.
        what: what the task does, for the progress bar and for errors: "Measuring kv_cache".
        environment: variables to set before CUDA starts.
        caches: the name of a folder for what compilers keep; calls that give the same name find
            what those before them compiled. None means: an empty one, so that a cold run is cold.
        **arguments: whatever can be pickled, like the result.

    Raises:
        MeasurementError: the process ended without a result.
    """
    with _lock:
        server = _current_server()
        try:
            server.ask(task, arguments, environment or {}, caches)
            answer = _listen(server, what)
        except BaseException:  # above all KeyboardInterrupt: what runs there must not go on
            stop()
            raise
    if "result" in answer:
        return answer["result"]
    raise MeasurementError(f"{what} failed: {answer['failed']}")


def stop():
    """End the server and all that it runs; the next call starts a new one."""
    while _servers:
        _servers.pop().stop()


def clean_environment():
    """Return the environment of this process without what would change a measurement's numbers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(KEPT_OUT)}


def code_hash():
    """Return a hash of the package's files as they are now, of what a worker would run."""
    paths = [*PACKAGE.glob("*.py"), *PACKAGE.glob("loops/*.py"), *PACKAGE.glob("measuring/*.py")]
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class Server:
    """A process that has the package imported and forks workers."""

    def __init__(self, environment, code):
        self.started_with = _read_at_import(environment), code, os.getpid()
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        self.requests = Connection(ours_in, readable=False)
        self.answers = Connection(ours_out, writable=False)
        command = [sys.executable, "-P", "-m", f"{__package__}.server", str(theirs_in)]
        self.process = subprocess.Popen(
            [*command, str(theirs_out)],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
            env=environment | {"PYTHONPATH": os.pathsep.join(_search_path())},
            start_new_session=True,  # Ctrl-C in a terminal is for us; we tell the server
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def serves(self, environment, code):
        """Whether its workers would run this code in this environment."""
        wanted = _read_at_import(environment), code, os.getpid()
        return self.started_with == wanted and self.process.poll() is None

    def ask(self, task, arguments, environment, caches):
        request = {
            "call": pickle.dumps((task, arguments)),  # for the worker: it may need more modules
            "search_path": _search_path(),
            "environment": clean_environment(),
            "settings": environment,
            "folder": os.getcwd(),
            "caches": caches,
        }
        with suppress(BrokenPipeError):  # then there is no answer, either
            self.requests.send(request)

    def stop(self):
        """End it; closing the pipe tells it to."""
        self.requests.close()
        self.answers.close()
        if self.started_with[-1] != os.getpid():
            return  # inherited through a fork: it is the parent's
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


_servers = []  # at most one
_lock = threading.RLock()
atexit.register(stop)


def _current_server():
    environment, code = clean_environment(), code_hash()
    if not (_servers and _servers[0].serves(environment, code)):
        stop()
        _servers.append(Server(environment, code))
    return _servers[0]


def _read_at_import(environment):
    return {key: value for key, value in environment.items() if key.startswith(READ_AT_IMPORT)}


def _search_path():
    """Return where modules are found, for a process that may start in another folder."""
    path = [folder or os.getcwd() for folder in sys.path]
    root = str(PACKAGE.parent)
    return path if root in path else [root, *path]


def _listen(server, title):
    """Show a progress bar until the process has ended; return its answer."""
    answer = None
    with tqdm(total=1, desc=title, leave=False, unit="run") as bar:
        while True:
            try:
                said = server.answers.recv()
            except (EOFError, OSError):
                return answer or {"failed": "the process that starts it ended."}
            if "ended" in said:
                return answer or {"failed": f"its process ended with exit code {said['ended']}."}
            if "done" in said:
                bar.total = said["total"]
                bar.update(said["done"] - bar.n)
            else:
                answer = said
