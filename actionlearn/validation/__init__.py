"""Is a trained map good, for what, and up to which temperature?"""

from actionlearn.validation.measure import Validation, held_out, validate
from actionlearn.validation.rollout import RollOut, roll_out
from actionlearn.validation.verdict import Limits, Verdict, judge

__all__ = ["Limits", "RollOut", "Validation", "Verdict", "held_out", "judge", "roll_out", "validate"]
