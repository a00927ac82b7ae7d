"""Splitting schemes: Verlet, its higher-order relatives, and the stepper that runs them."""

from actionlearn.schemes.composition import Move, Scheme
from actionlearn.schemes.published import (
    BLANES_MOAN_4,
    CHIN_4A,
    MCLACHLAN_4,
    POSITION_VERLET,
    PUBLISHED,
    TAKAHASHI_IMADA,
    VELOCITY_VERLET,
    YOSHIDA_4,
    YOSHIDA_6,
    composed,
    mirrored,
    respa,
)
from actionlearn.schemes.splitting import ForceMemory, Splitting, Verlet

__all__ = [
    "BLANES_MOAN_4",
    "CHIN_4A",
    "MCLACHLAN_4",
    "POSITION_VERLET",
    "PUBLISHED",
    "TAKAHASHI_IMADA",
    "VELOCITY_VERLET",
    "YOSHIDA_4",
    "YOSHIDA_6",
    "ForceMemory",
    "Move",
    "Scheme",
    "Splitting",
    "Verlet",
    "composed",
    "mirrored",
    "respa",
]
