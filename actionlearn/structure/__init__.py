"""Measures of structure for any step, a callable state -> state: they return numbers and judge nothing."""

from actionlearn.structure.conservation import (
    angular_momentum_drift,
    momentum_drift,
    momentum_reversal_error,
    reversal_error,
)
from actionlearn.structure.jacobian import (
    Step,
    estimate_symplectic_defect,
    jacobian_products,
    step_jacobian,
    symplectic_defect,
    symplectic_form,
)

__all__ = [
    "Step",
    "angular_momentum_drift",
    "estimate_symplectic_defect",
    "jacobian_products",
    "momentum_drift",
    "momentum_reversal_error",
    "reversal_error",
    "step_jacobian",
    "symplectic_defect",
    "symplectic_form",
]
