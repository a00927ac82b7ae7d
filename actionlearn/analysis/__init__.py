"""What a trajectory tells, from this package or elsewhere: averages with errors, structure, spectra."""

from actionlearn.analysis.blocks import block_means, mean_and_error
from actionlearn.analysis.radial import RadialDistribution, radial_distribution
from actionlearn.analysis.spectra import VelocitySpectrum, velocity_autocorrelation, velocity_spectrum
from actionlearn.analysis.temperatures import (
    Temperatures,
    rigid_bands,
    temperatures_by_band,
    temperatures_by_species,
)
from actionlearn.analysis.trajectory import Trajectory

__all__ = [
    "RadialDistribution",
    "Temperatures",
    "Trajectory",
    "VelocitySpectrum",
    "block_means",
    "mean_and_error",
    "radial_distribution",
    "rigid_bands",
    "temperatures_by_band",
    "temperatures_by_species",
    "velocity_autocorrelation",
    "velocity_spectrum",
]
