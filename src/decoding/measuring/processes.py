"""Fresh processes: each measurement runs in one of its own and sends its result back."""

import multiprocessing
import os
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from .errors import MeasurementError


def run_fresh(task, what, environment=None, **arguments):
    """Call ``task(report, **arguments)`` in a fresh process and return its result.

    The processes are forked from a server that has imported the task's module but never touched
    CUDA: each starts with no CUDA context, no cached memory and nothing compiled, without importing
    again. The progress is shown on stderr.

    Args:
        task: a function of a module; its first argument is a function to call now and then with
            how many runs are done and how many there are.
        what: what the task does, for the progress bar and for errors: "Measuring kv_cache".
        environment: variables to set before CUDA starts.
        **arguments: whatever can be pickled, like the result.

    Raises:
        MeasurementError: the process ended without a result.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([task.__module__])
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        # A cold run is cold: it finds no kernels that an earlier process compiled.
        own = {
            "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor"),
            "TRITON_CACHE_DIR": str(Path(folder) / "triton"),
        }
        settings = {**own, **(environment or {})}
        process = context.Process(target=_answer, args=(theirs, task, settings, arguments))
        with _main_module_hidden():
            process.start()
        theirs.close()
        answer = _listen(ours, what)
        process.join()
    if "result" in answer:
        return answer["result"]
    reason = answer.get("failed", f"its process ended with exit code {process.exitcode}")
    raise MeasurementError(f"{what} failed: {reason}")


@contextmanager
def _main_module_hidden():
    """Keep multiprocessing from running the caller's script again in the fresh process."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _listen(connection, title):
    """Show a progress bar until the process sends its result; return that, or {} if it dies."""
    with tqdm(total=1, desc=title, leave=False, unit="run") as bar:
        while True:
            try:
                answer = connection.recv()
            except EOFError:
                return {}
            if "done" not in answer:
                return answer
            bar.total = answer["total"]
            bar.update(answer["done"] - bar.n)


def _answer(connection, task, environment, arguments):
    """Run ``task`` and send back its result, or what went wrong: the whole life of a process."""
    # Before CUDA starts: later, the allocator has read its setting already.
    os.environ.update(environment)
    try:
        result = task(partial(_report, connection), **arguments)
    except BaseException as error:  # also SystemExit and KeyboardInterrupt: the asker must know
        connection.send({"failed": f"{type(error).__name__}: {error}"})
    else:
        connection.send({"result": result})


def _report(connection, done, total):
    connection.send({"done": done, "total": total})
