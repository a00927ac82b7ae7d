"""A splitting scheme as data: a sequence of kicks and drifts.

With H = p²/2m + V(q), a step of length h is a product of the exact flows of the parts,

    V   kick    p ← p + b·h·F(q) + c·h³·G(q),     F = −∂V/∂q,   G = ∂/∂q Σ F²/m
    R   drift   q ← q + a·h·p/m

so every scheme here is symplectic, and reversible because its sequence reads the same both ways.

| symbol | field            | meaning                                       |
|--------|------------------|-----------------------------------------------|
| a, b   | `Move.fraction`  | share of the step this move makes             |
| c      | `Move.gradient`  | strength of the force-gradient term           |
| h      | `step_fs`        | length of the step, fs at the boundary        |
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import NamedTuple

from actionlearn.errors import InvalidInput


class Move(NamedTuple):
    """One flow of a splitting: `R` drifts, any other letter kicks with the potential of that letter."""

    letter: str
    fraction: float
    gradient: float = 0.0


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A splitting: its moves in order, the order of convergence it has, and where it was published."""

    name: str
    moves: tuple[Move, ...]
    order: int
    source: str

    def __post_init__(self) -> None:
        """Each part must be advanced by exactly one step in all."""
        for letter in self.letters:
            total = sum(move.fraction for move in self.moves if move.letter == letter)
            if abs(total - 1.0) > 1e-12:
                raise InvalidInput(f"scheme {self.name}: the fractions of {letter} add up to {total!r}, expected 1")

    @classmethod
    def parse(cls, words: str, *, order: int, source: str, name: str = "") -> Scheme:
        """Read a composition such as "V R V" or "V:1/6 R V:2/3 R V:1/6".

        A letter without a fraction takes an equal share of what the others of its kind leave of the step.
        """
        parts = [word.partition(":") for word in words.split()]
        given = [_fraction(text) if colon else None for _, colon, text in parts]
        moves = []
        for (letter, _, _), fraction in zip(parts, given, strict=True):
            if not (len(letter) == 1 and letter.isalpha()):
                raise InvalidInput(
                    f"{letter!r} in {words!r} is no part of a splitting: expected words like V, R, V:1/2"
                )
            same = [f for (other, _, _), f in zip(parts, given, strict=True) if other == letter]
            share = (1.0 - sum(f for f in same if f is not None)) / max(1, same.count(None))
            moves.append(Move(letter, share if fraction is None else fraction))
        return cls(name or words, tuple(moves), order, source)

    @property
    def letters(self) -> tuple[str, ...]:
        """The parts of the Hamiltonian, in order of appearance."""
        return tuple(dict.fromkeys(move.letter for move in self.moves))

    def evaluations(self, letter: str = "V") -> int:
        """Forces of `letter` per step of a long run, in which a last kick and the next first one share theirs."""
        return _fresh_forces(self.moves * 2, letter) - _fresh_forces(self.moves, letter)

    def __str__(self) -> str:
        """The composition in words, rounded; a force gradient is shown as an extra term."""
        term = lambda move: f"+{move.gradient:.6g}·h²G" if move.gradient else ""  # noqa: E731
        return " ".join(f"{move.letter}:{move.fraction:.6g}{term(move)}" for move in self.moves)


def _fraction(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise InvalidInput(f"{text!r} is not a fraction of a step: expected a number such as 0.5 or 1/6") from None


def _fresh_forces(moves: tuple[Move, ...], letter: str) -> int:
    """How often `letter` kicks at positions where its force is not known yet."""
    fresh, count = True, 0
    for move in moves:
        if move.letter == "R":
            fresh = True
        elif move.letter == letter and fresh:
            fresh, count = False, count + 1
    return count
