"""What benchmarks write down is compared: planted regressions are found, noise passes, structure has limits."""

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from clock import Turns  # noqa: E402
from ledger import Ledger, Row, compare, environment, expected, read_rows, write_rows  # noqa: E402


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
