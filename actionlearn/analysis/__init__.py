"""What a trajectory tells, from this package or elsewhere: averages with errors, structure, spectra."""

from actionlearn.analysis.blocks import block_means, mean_and_error
from actionlearn.analysis.diffusion import diffusion, mean_square_displacement
from actionlearn.analysis.infrared import InfraredSpectrum, dipoles, infrared_spectrum
from actionlearn.analysis.radial import RadialDistribution, coordination, radial_distribution
from actionlearn.analysis.spectra import VelocitySpectrum, velocity_autocorrelation, velocity_spectrum
from actionlearn.analysis.temperatures import (
    Temperatures,
    rigid_bands,
    temperatures_by_band,
    temperatures_by_species,
)
from actionlearn.analysis.trajectory import Trajectory

__all__ = [
    "InfraredSpectrum",
    "RadialDistribution",
    "Temperatures",
    "Trajectory",
    "VelocitySpectrum",
    "block_means",
    "coordination",
    "diffusion",
    "dipoles",
    "infrared_spectrum",
    "mean_and_error",
    "mean_square_displacement",
    "radial_distribution",
    "rigid_bands",
    "temperatures_by_band",
    "temperatures_by_species",
    "velocity_autocorrelation",
    "velocity_spectrum",
]
