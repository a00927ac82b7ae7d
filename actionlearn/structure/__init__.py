"""Measures of structure for any step, a callable state -> state: they return numbers and judge nothing."""

from actionlearn.structure.conservation import (
    angular_momentum_drift,
    momentum_drift,
    momentum_reversal_error,
    reversal_error,
)
from actionlearn.structure.drift import Measured, energy_drift
from actionlearn.structure.equipartition import Equipartition, equipartition, vibrational_bands
from actionlearn.structure.foreign import Step, as_step
from actionlearn.structure.jacobian import (
    estimate_symplectic_defect,
    jacobian_products,
    step_jacobian,
    symplectic_defect,
    symplectic_form,
)

__all__ = [
    "Equipartition",
    "Measured",
    "Step",
    "angular_momentum_drift",
    "as_step",
    "energy_drift",
    "equipartition",
    "estimate_symplectic_defect",
    "jacobian_products",
    "momentum_drift",
    "momentum_reversal_error",
    "reversal_error",
    "step_jacobian",
    "symplectic_defect",
    "symplectic_form",
    "vibrational_bands",
]
