"""Jobs that run at once, each in a thread."""

import threading
from contextlib import nullcontext


def run_together(jobs, *, times=4, within=nullcontext):
    """Run each of ``jobs`` in a thread, all beginning at once, ``times`` times; raise what one raised.

    Args:
        jobs: functions without arguments.
        times: how often.
        within: makes the context manager in which a thread runs.
    """
    barrier, errors = threading.Barrier(len(jobs)), []

    def work(job):
        try:
            with within():
                for _ in range(times):
                    barrier.wait(timeout=120)
                    job()
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
        assert not thread.is_alive()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    assert not errors
