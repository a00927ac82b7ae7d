"""Reference trajectories: sampled with a base potential, kept on disk, streamed back."""

from actionlearn.reference.frequency import highest_frequency
from actionlearn.reference.reader import ReferenceSet
from actionlearn.reference.recording import record
from actionlearn.reference.sampler import sample
from actionlearn.reference.stretch import Stretch
from actionlearn.reference.structures import read_structures

__all__ = ["ReferenceSet", "Stretch", "highest_frequency", "read_structures", "record", "sample"]
