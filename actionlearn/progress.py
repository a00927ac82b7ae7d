"""A progress line with the time left, on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Progress:
    """`with Progress("sampling", total) as bar: bar.advance(work)`; silent unless `shown`.

    On a terminal the line is redrawn in place; elsewhere (a log file) a line is written at most every ten seconds.
    """

    def __init__(self, title: str, total: float, *, done: float = 0.0, shown: bool = True) -> None:
        """Track `total` units of work, `done` of which were there before and tell nothing about the speed."""
        self.title = title
        self.total = max(total, 1e-300)
        self.done = done
        self.shown = shown
        self._before = done
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._last_line = 0.0

    def __enter__(self) -> Progress:
        """Show the line at once."""
        self._show("", final=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave a finished line behind."""
        self._show("", final=True)

    def advance(self, work: float, note: str = "") -> None:
        """Count `work` more units; `note` is shown at the end of the line."""
        self.done += work
        self._show(note, final=False)

    def seconds_left(self) -> float | None:
        """Time left at the speed so far, or None before anything was done."""
        fresh = self.done - self._before
        if fresh <= 0:
            return None
        return (time.monotonic() - self._started) / fresh * max(self.total - self.done, 0.0)

    def _show(self, note: str, *, final: bool) -> None:
        now = time.monotonic()
        if not self.shown or (not self._terminal and not final and now - self._last_line < 10.0):
            return
        self._last_line = now
        part = min(self.done / self.total, 1.0)
        left = self.seconds_left()
        clock = f"{_clock(now - self._started)} gone"
        if not final:
            clock = f"{'--:--' if left is None else _clock(left)} left"
        bar = ("#" * round(20 * part)).ljust(20, ".")
        line = f"{self.title} [{bar}] {100 * part:3.0f} %  {clock}  {note}".rstrip()
        if self._terminal:
            print(f"\r\x1b[K{line}", end="\n" if final else "", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
