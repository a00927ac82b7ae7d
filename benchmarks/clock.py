"""What calls cost beside each other: measured in turns in one process, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


class Turns:
    """CPU seconds of calls that took turns, (rounds,) for each name."""

    def __init__(self, calls: Mapping[str, Callable[[], object]], rounds: int, lead_in: int = 2) -> None:
        """Every round makes every call once; the first few rounds are not counted."""
        self.seconds = {name: np.empty(rounds) for name in calls}
        for k in range(-lead_in, rounds):
            for name, call in calls.items():
                started = time.process_time()
                call()
                if k >= 0:
                    self.seconds[name][k] = time.process_time() - started

    def ms(self, name: str) -> float:
        """Median cost of one call."""
        return 1e3 * float(np.median(self.seconds[name]))

    def ratio(self, name: str, unit: str) -> tuple[float, float]:
        """Median of the rounds' ratios and its standard error, 1.25 σ/√n with σ from the quartiles."""
        ratios = self.seconds[name] / self.seconds[unit]
        low, median, high = np.percentile(ratios, [25, 50, 75])
        return float(median), float(1.25 * (high - low) / 1.35 / len(ratios) ** 0.5)
