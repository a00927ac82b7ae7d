"""Published splitting schemes: coefficients in closed form where there is one, tested by their order everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from actionlearn.errors import InvalidInput
from actionlearn.schemes.composition import Move, Scheme


def composed(weights: Sequence[float], *, name: str, order: int, source: str) -> Scheme:
    """Velocity Verlet steps of length w·h in a row; kicks that meet are merged into one."""
    kicks = [Move("V", (left + right) / 2) for left, right in zip((0.0, *weights), (*weights, 0.0), strict=True)]
    drifts = [Move("R", w) for w in weights]
    moves = [move for pair in zip(kicks[:-1], drifts, strict=True) for move in pair]
    return Scheme(name, (*moves, kicks[-1]), order, source)


def mirrored(letters: str, fractions: Sequence[float], *, name: str, order: int, source: str) -> Scheme:
    """Two letters in turn with these fractions up to the middle one, then the same backwards."""
    half = [Move(letters[k % 2], fraction) for k, fraction in enumerate(fractions)]
    return Scheme(name, (*half, *reversed(half[:-1])), order, source)


VELOCITY_VERLET = Scheme.parse(
    "V R V", name="velocity Verlet", order=2, source="Swope, Andersen, Berens, Wilson, J. Chem. Phys. 76, 637 (1982)"
)

POSITION_VERLET = Scheme.parse(
    "R V R", name="position Verlet", order=2, source="Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992)"
)

_w = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
YOSHIDA_4 = composed(
    (_w, 1.0 - 2.0 * _w, _w),
    name="Yoshida 4",
    order=4,
    source="Yoshida, Phys. Lett. A 150, 262 (1990), eq. 2.11: Σw = 1 and Σw³ = 0",
)

_w1, _w2, _w3 = -1.177679984178871, 0.2355732133593581, 0.7845136104775573
YOSHIDA_6 = composed(
    (_w3, _w2, _w1, 1.0 - 2.0 * (_w1 + _w2 + _w3), _w1, _w2, _w3),
    name="Yoshida 6",
    order=6,
    source="Yoshida, Phys. Lett. A 150, 262 (1990), table 1, solution A",
)

_root = math.sqrt(19.0)
_a1, _a2, _b1, _b2 = (14.0 - _root) / 108.0, (20.0 - 7.0 * _root) / 108.0, 2.0 / 5.0, -1.0 / 10.0
MCLACHLAN_4 = mirrored(
    "RV",
    (_a1, _b1, _a2, _b2, 0.5 - _a1 - _a2, 1.0 - 2.0 * (_b1 + _b2)),
    name="McLachlan 4",
    order=4,
    source="McLachlan, SIAM J. Sci. Comput. 16, 151 (1995)",
)

_b1, _b2, _b3 = 0.0829844064174052, 0.396309801498368, -0.0390563049223486
_a1, _a2 = 0.245298957184271, 0.604872665711080
BLANES_MOAN_4 = mirrored(
    "VR",
    (_b1, _a1, _b2, _a2, _b3, 0.5 - _a1 - _a2, 1.0 - 2.0 * (_b1 + _b2 + _b3)),
    name="Blanes-Moan 4",
    order=4,
    source="Blanes and Moan, J. Comput. Appl. Math. 142, 313 (2002), Runge-Kutta-Nyström scheme with 6 stages, order 4",
)

TAKAHASHI_IMADA = Scheme(
    "Takahashi-Imada",
    (Move("R", 0.5), Move("V", 1.0, gradient=1.0 / 24.0), Move("R", 0.5)),
    order=2,
    source="Takahashi and Imada, J. Phys. Soc. Jpn. 53, 3765 (1984): order 2, but conjugate to a map of order 4",
)

CHIN_4A = Scheme(
    "Chin 4A",
    (
        Move("V", 1.0 / 6.0),
        Move("R", 0.5),
        Move("V", 2.0 / 3.0, gradient=1.0 / 72.0),
        Move("R", 0.5),
        Move("V", 1.0 / 6.0),
    ),
    order=4,
    source="Chin, Phys. Lett. A 226, 344 (1997), algorithm A",
)

PUBLISHED = (
    VELOCITY_VERLET,
    POSITION_VERLET,
    YOSHIDA_4,
    YOSHIDA_6,
    MCLACHLAN_4,
    BLANES_MOAN_4,
    TAKAHASHI_IMADA,
    CHIN_4A,
)


def respa(inner: int) -> Scheme:
    """r-RESPA: one slow kick S at each end, `inner` velocity Verlet steps with the fast force F between."""
    if inner < 1:
        raise InvalidInput(f"r-RESPA needs at least one inner step, not {inner}")
    fast = composed((1.0 / inner,) * inner, name="", order=2, source="").moves
    moves = (Move("S", 0.5), *(m._replace(letter="F") if m.letter == "V" else m for m in fast), Move("S", 0.5))
    source = "Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992)"
    return Scheme(f"r-RESPA {inner}", moves, order=2, source=source)
