"""Scalar networks that potentials and actions are made of."""

from actionlearn.networks.atomic_moments import AtomicMoments, Head

__all__ = ["AtomicMoments", "Head"]
