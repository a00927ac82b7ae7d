"""Modules import only from their own floor or below, and nothing inside imports the package root."""

import ast
from pathlib import Path

import actionlearn

ROOT = Path(actionlearn.__file__).parent

FLOORS = {
    "units": 0,
    "errors": 0,
    "state": 0,
    "files": 0,
    "progress": 0,
    "parallel": 0,
    "memory": 0,
    "krylov": 1,
    "neighbours": 1,
    "stepping": 1,
    "potentials": 1,
    "systems": 1,
    "hydrogen": 1,
    "flows": 1,
    "solver": 1,
    "structure": 1,
    "schemes": 2,
    "networks": 2,
    "maps": 2,
    "reference": 3,
    "dataset": 3,
    "gdml": 3,
    "losses": 3,
    "clock": 3,
    "optimiser": 3,
    "hamilton_jacobi": 3,
    "settings": 3,
    "assessment": 3,
    "training": 3,
    "heating": 3,
    "uncertainty": 3,
    "checkpoint": 3,
    "dipoles": 3,
    "validation": 4,
    "correction": 4,
    "adaptive": 4,
    "advice": 4,
    "dynamics": 4,
    "ase": 4,
    "analysis": 4,
    "pictures": 4,
    "demo": 5,
    "report": 5,
    "commands": 5,
    "cli": 5,
}


def modules():
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if name != "__init__" and name != "__main__":
            yield name, path


def test_every_module_has_a_floor():
    assert {name for name, _ in modules()} <= set(FLOORS)


def test_imports_point_downwards():
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            targets = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "actionlearn":
                parts = node.module.split(".")
                targets = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                targets = [
                    a.name.split(".")[1] if "." in a.name else "root"
                    for a in node.names
                    if a.name.split(".")[0] == "actionlearn"
                ]
            for target in targets:
                assert target in FLOORS, f"{path} imports the package root"
                assert FLOORS[target] <= FLOORS[name], (
                    f"{path}: floor {FLOORS[name]} imports {target} from floor {FLOORS[target]}"
                )
