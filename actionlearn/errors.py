"""Every error this package raises on purpose: what was expected, what came, what to do."""


class ActionlearnError(Exception):
    """Base of all errors of this package; the command line prints its text as one line."""


class InvalidState(ActionlearnError, ValueError):
    """A phase-space state that cannot be simulated."""


class InvalidInput(ActionlearnError, ValueError):
    """An argument, file or option that cannot be used."""


class UnsupportedSystem(ActionlearnError, ValueError):
    """A valid system that this potential or map was not made for."""


class DataError(ActionlearnError, ValueError):
    """Recorded data that contradict themselves or what is asked of them."""


class CalculatorFailed(ActionlearnError, RuntimeError):
    """A base potential raised or returned non-finite numbers."""


class NotDifferentiable(ActionlearnError, RuntimeError):
    """A derivative was asked of something that has none, such as the forces of an external program."""


class NonFinite(ActionlearnError, ArithmeticError):
    """A step produced numbers that are not finite."""


class BlownUp(ActionlearnError, ArithmeticError):
    """A trajectory whose atoms fly apart, though all numbers are still finite."""


class DriftTooLarge(ActionlearnError, RuntimeError):
    """The conserved energy of a run moves away faster than it may."""


class OutsideTraining(ActionlearnError, RuntimeError):
    """Atoms in surroundings that a trained map has seen nothing like."""


class NotConverged(ActionlearnError, RuntimeError):
    """An implicit equation was not solved to its tolerance.

    Attributes carry the numbers, so that a caller can react to them.
    """

    def __init__(self, message: str, *, residual: float, tolerance: float, iterations: int) -> None:
        """Keep the residual reached, the tolerance asked for and the evaluations spent."""
        super().__init__(message)
        self.residual = residual
        self.tolerance = tolerance
        self.iterations = iterations
