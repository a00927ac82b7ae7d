"""Force fields of one molecule or crystal from a few hundred geometries: symmetric gradient-domain machine learning."""

from actionlearn.gdml.model import GDML
from actionlearn.gdml.symmetries import crystal_symmetries, generated_group, recover_symmetries
from actionlearn.gdml.training import ClosedForm, Iterative, Labels, choose_sigma, fit, force_error

__all__ = [
    "ClosedForm",
    "GDML",
    "Iterative",
    "Labels",
    "choose_sigma",
    "crystal_symmetries",
    "fit",
    "force_error",
    "generated_group",
    "recover_symmetries",
]
