"""Calculators of packages that are installed besides, set up so that their forces suit microcanonical runs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import torch

from actionlearn.errors import InvalidInput


def gfn2_xtb() -> Any:
    """Tight binding, GFN2-xTB, of tblite."""
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise InvalidInput("gfn2-xtb needs tblite: pip install 'actionlearn[xtb]'") from error
    # the default accuracy leaves steps in the forces that show up as heating
    return TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)


def so3lr() -> Any:
    """SO3LR, a neural force field of organic and biomolecules, in double precision and reaching 12 Å."""
    try:
        from so3krates_torch.calculator.so3 import SO3LRCalculator
    except ImportError as error:
        raise InvalidInput("so3lr needs so3krates-torch: pip install 'actionlearn[so3lr]'") from error

    class InDouble(SO3LRCalculator):
        """It computes in torch's default precision, and changes it: here only while it is at work."""

        def __init__(self) -> None:
            with _default_dtype(torch.float64), contextlib.redirect_stdout(io.StringIO()):
                super().__init__(device="cpu", r_max_lr=12.0, default_dtype="float64")

        def calculate(self, *args: Any, **kwargs: Any) -> None:
            with _default_dtype(torch.float64):
                super().calculate(*args, **kwargs)

    return InDouble()


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
