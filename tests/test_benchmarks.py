"""What benchmarks write down is compared: planted regressions are found, noise passes, structure has limits."""

import dataclasses
import importlib
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import actionlearn as al
from actionlearn.dataset import Dataset

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))
from clock import Turns  # noqa: E402
from ledger import Ledger, Row, compare, environment, expected, read_rows, write_rows  # noqa: E402
from peers.flow_maps import Repaired, consistency_loss, trained  # noqa: E402
from run import BASELINE  # noqa: E402
from run import BENCHMARKS as SCRIPTS  # noqa: E402
from tables import PAGE, TABLES, filled  # noqa: E402
from yardstick import Contender, Ladder, Spans  # noqa: E402


def rows():
    ledger = Ledger("example")
    ledger.add("alloy", "gradient / EMT call", 0.8, error=0.01, tolerance=0.1)
    ledger.add("alloy", "error of Δp", 0.42, unit="%", tolerance=0.02)
    ledger.add("alloy", "acceptance", 0.9, better="higher", tolerance=0.05)
    ledger.add("alloy", "quanta off", 0.0, better="equal", limit=0.0)
    ledger.add("alloy", "symplectic defect", 1e-15, **expected(False, 1e-10, 1e-6))
    ledger.add("explicit Euler", "symplectic defect", 1e-2, **expected(True, 1e-10, 1e-6))
    return ledger.rows


def changed(quantity, value, case="alloy"):
    """The verdict on a run in which one number is another."""
    found = [
        dataclasses.replace(row, value=value) if (row.case, row.quantity) == (case, quantity) else row for row in rows()
    ]
    verdicts = {change.row.name[1:]: change.verdict for change in compare(found, rows())}
    assert all(verdict == "same" for name, verdict in verdicts.items() if name != (case, quantity))
    return verdicts[case, quantity]


def test_a_run_is_the_same_as_itself():
    assert {change.verdict for change in compare(rows(), rows())} == {"same"}


@pytest.mark.parametrize(
    ("quantity", "value", "verdict"),
    [
        ("gradient / EMT call", 1.0, "worse"),
        ("gradient / EMT call", 0.6, "better"),
        ("error of Δp", 0.44, "worse"),
        ("error of Δp", math.nan, "worse"),
        ("acceptance", 0.7, "worse"),
        ("acceptance", 0.99, "better"),
    ],
)
def test_planted_changes_are_found(quantity, value, verdict):
    assert changed(quantity, value) == verdict


def test_noise_passes():
    """Within the tolerance, or within three standard errors of the difference."""
    assert changed("gradient / EMT call", 0.87) == "same"
    assert changed("error of Δp", 0.427) == "same"
    noisy = [Row("example", "alloy", "drift", 1.0, error=0.5, tolerance=0.0)]
    rng = np.random.default_rng(0)
    again = [dataclasses.replace(noisy[0], value=1.0 + 0.5 * math.sqrt(2.0) * z) for z in rng.normal(size=500)]
    assert sum(compare([row], noisy)[0].verdict == "worse" for row in again) < 5


def test_structure_fails_whatever_it_was_before():
    assert changed("symplectic defect", 1e-8) == "fails"
    assert changed("symplectic defect", math.nan) == "fails"
    assert changed("symplectic defect", 1e-12) == "same"
    assert changed("symplectic defect", 1e-9, case="explicit Euler") == "fails"
    assert changed("quanta off", 1.0) == "fails"


def test_rows_that_come_and_go():
    fewer, more = rows()[1:], [*rows(), Row("example", "water", "error of Δp", 0.1)]
    assert [change.verdict for change in compare(fewer, rows())][-1] == "gone"
    assert [change.verdict for change in compare(more, rows())][-1] == "new"


def test_rows_survive_the_file(tmp_path):
    path = tmp_path / "rows.json"
    found = [*rows(), Row("example", "lost", "drift", math.nan, error=0.123456789, better="equal")]
    write_rows(path, found, environment())
    again, about = read_rows(path)
    assert again[:-1] == found[:-1]
    assert math.isnan(again[-1].value)
    assert again[-1].error == 0.123457
    assert {"python", "versions", "processor", "threads", "commit", "date"} <= set(about)
    assert len(path.read_text().splitlines()) > len(found)  # one row a line
    path.write_text(json.dumps({"format": "another"}))
    with pytest.raises(ValueError, match=r"another.*expected 'actionlearn benchmark 1': measure again"):
        read_rows(path)
    with pytest.raises(ValueError, match="better is one of"):
        Row("example", "alloy", "drift", 1.0, better="smaller")


def test_ratios_of_calls_that_take_turns():
    calls = {"one": lambda: sum(range(3000)), "three": lambda: sum(range(9000))}
    ratio, error = Turns(calls, rounds=40).ratio("three", "one")
    assert 2.0 < ratio < 4.5
    assert 0.0 <= error < 1.0


def test_rows_are_written_where_asked_for(tmp_path):
    path = tmp_path / "rows.json"
    ledger = Ledger("example")
    ledger.write(None, quick=True)  # not asked for
    ledger.write(path, quick=True)
    (row,), about = read_rows(path)
    assert (row.quantity, row.unit) == ("CPU time", "s")
    assert about["quick"] is True


def ladder():
    """Second order, and lost at the longest step."""
    rungs = (1, 2, 4, 8)
    return Ladder("made up", rungs, (math.nan, 0.25, 0.0625, 0.015625))


def test_steps_at_an_accuracy_and_accuracy_at_a_cost():
    assert ladder().steps_for(0.0625) == pytest.approx(4.0)
    assert ladder().steps_for(0.03125) == pytest.approx(4.0 * math.sqrt(2.0))
    assert ladder().steps_for(1e-4) == pytest.approx(100.0)  # continued at the order of the last rungs
    assert ladder().steps_for(0.4) == 2.0  # the longest step that it can take
    assert ladder().error_at(4.0) == pytest.approx(0.0625)
    assert ladder().error_at(16.0) == pytest.approx(0.015625 / 4.0)
    assert math.isinf(ladder().error_at(1.0))
    learned = Ladder("learned", (2, 4, 8), (0.25, 0.07, 0.05))
    assert learned.steps_for(0.07) == pytest.approx(4.0)
    assert math.isinf(learned.steps_for(0.04))


def test_errors_are_those_against_the_exact_flow():
    rng = torch.Generator().manual_seed(0)
    states = [
        al.PhaseState(*torch.randn(2, 5, 1, generator=rng, dtype=torch.float64), torch.ones(5, dtype=torch.float64))
        for _ in range(3)
    ]
    well = al.potentials.FunctionPotential(lambda s: s.sum_by_system(0.5 * s.positions.square().sum(1)))
    span_fs = 0.5 / al.units.FEMTOSECOND
    spans = Spans.exact(well, states, span_fs, span_fs / 20.0)
    turned = [math.cos(0.5) * s.positions + math.sin(0.5) * s.momenta for s in states]
    torch.testing.assert_close(spans.ends.positions, torch.cat(turned), rtol=0, atol=1e-9)
    climbed = Ladder.climb("Verlet", lambda h: al.Verlet(well, step_fs=h), spans, span_fs, (2, 4, 8))
    assert climbed.errors[1] / climbed.errors[2] == pytest.approx(4.0, rel=0.05)
    exploding = Contender("too long", al.Verlet(well, step_fs=1e200 * span_fs))
    assert all(math.isnan(value) for value in spans.errors(exploding))


class Turning:
    """The exact means of a harmonic oscillator of unit mass and frequency."""

    longest = 1.0

    def __init__(self, wrong=1.0):
        self.wrong = wrong

    def means(self, state, time):
        t = time[state.system].unsqueeze(1)
        q, p = state.positions, state.momenta
        c, s = torch.cos(t) - 1.0, torch.sin(t)
        return self.wrong * (c * q + s * p) / t, (c * p - s * q) / t


def test_means_of_the_exact_motion_are_consistent_and_others_are_not():
    rng = torch.Generator().manual_seed(0)
    q, p = torch.randn(2, 6, 1, generator=rng, dtype=torch.float64)
    ones = torch.ones(6, dtype=torch.float64)
    state = al.PhaseState.batch([al.PhaseState(q[:3], p[:3], ones[:3]), al.PhaseState(q[3:], p[3:], ones[3:])])
    time, scale = ones[:2] * torch.tensor([0.3, 0.9], dtype=torch.float64), ones[:2]
    right, wrong = (consistency_loss(Turning(w), state, -state.positions, time, scale) for w in (1.0, 1.1))
    assert right < 1e-6
    assert wrong > 1e-3


def test_flow_maps_learn_forces_in_seconds_and_repair_what_they_break():
    data = Dataset.open(BENCHMARKS.parent / "data" / "cuau", step_fs=24.0)
    flow = trained(data.split(0)[1], 24.0, 1.0, {"cutoff": 4.0, "channels": 4, "hidden": 8})
    assert flow.report["updates"] > 3
    state = data.stretches[0].state(0)
    v, f = flow.means(state, state.positions.new_zeros(1))
    torch.testing.assert_close(v, state.velocities)
    base = al.potentials.SecondMomentMetals()
    assert (f * base.forces(state)).sum() > 0
    total = lambda s: float(s.kinetic_energy() + base.energy(s))  # noqa: E731
    plain, repaired = flow.step(state), Repaired(flow, base).step(state)
    assert abs(total(plain) - total(state)) > 1e-3
    assert total(repaired) == pytest.approx(total(state), abs=1e-9)
    assert repaired.momenta.sum(0).abs().max() < 1e-9


def test_the_committed_run_is_of_today_s_benchmarks():
    found, about = read_rows(BASELINE)
    assert {row.benchmark for row in found} <= set(SCRIPTS)
    assert about["quick"] is True
    assert all(row.holds for row in found)
    assert {change.verdict for change in compare(found, found)} == {"same"}


def test_the_page_shows_what_was_measured():
    page = PAGE.read_text()
    assert all(f"<!-- {name} -->\n| " in page for name in TABLES)
    assert filled(page) == page, "python benchmarks/tables.py --write"
    spoiled = re.sub(r"\*\*\d\S*\*\*", "**0**", page)
    assert page != spoiled
    assert filled(spoiled) == page


@pytest.mark.parametrize("script", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_every_script_still_finds_what_it_imports(script):
    assert Path(importlib.import_module(script).__file__).parent == BENCHMARKS
