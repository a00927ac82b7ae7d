"""Work that can wait, done in order by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

QUEUED = 64
"""Jobs that may wait; a run that makes them faster than they are done waits for the oldest."""


class Writer:
    """`with Writer() as writer: writer.do(job)`: jobs are done one after the other, while the caller goes on.

    The first job that fails is the last that is done: its error is raised by every later call of `do`, `flush` and
    `close`. Leaving the block waits for all jobs.
    """

    def __init__(self) -> None:
        """The thread starts with the first job."""
        self._jobs: queue.Queue[Callable[[], object] | None] = queue.Queue(QUEUED)
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None

    def do(self, job: Callable[[], object]) -> None:
        """Do this when all that came before is done."""
        self._raise()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def flush(self) -> None:
        """Wait until all jobs are done."""
        self._jobs.join()
        self._raise()

    def close(self) -> None:
        """Wait until all jobs are done, and let the thread end."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        self._raise()

    def __enter__(self) -> Writer:
        """Nothing happens before the first job."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish; an error that is on its way already is not replaced by one of the jobs."""
        try:
            self.close()
        except BaseException:
            if error is None:
                raise

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if job is None:
                    return
                if self._problem is None:
                    job()
            except BaseException as problem:
                self._problem = problem
            finally:
                self._jobs.task_done()

    def _raise(self) -> None:
        if self._problem is not None:
            raise self._problem
