"""The page about a map: verdict, limits, training, what was measured, advice on the step, runs, works, commands."""

from __future__ import annotations

import functools
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from actionlearn.dynamics import as_text
from actionlearn.errors import DataError
from actionlearn.pictures import learning_curve
from actionlearn.report import measured
from actionlearn.report.evidence import Evidence
from actionlearn.report.markup import (
    Html,
    beside,
    command,
    facts,
    figure,
    folded,
    items,
    join,
    link,
    page,
    paragraph,
    table,
    text,
)

#: What a step is, in a line, and whether it keeps the structure whatever was learned.
KINDS = {
    "discrete": "K(U₀) D(h/s) K(U₁) … D(h/s) K(U₀): learned kicks between exact drifts. Symplectic and reversible "
    "whatever the network, total and angular momentum conserved.",
    "processed": "χ⁻¹ ∘ Ψ ∘ χ: learned kicks and exact drifts in learned variables, which are entered at the start of "
    "a run and left at its end. Symplectic and reversible whatever the network.",
    "corrected": "Kicks of the base potential, each with a learned correction, between exact drifts. Symplectic and "
    "reversible whatever the network; every step calls the base potential.",
    "midpoint": "Δq = ∂S/∂p̄, Δp = −∂S/∂q̄ of a learned action S at the midpoint, solved to a tolerance. Symplectic and "
    "reversible whatever the network, as far as it is solved.",
    "potential": "A network matched to the forces of the base potential; its step is velocity Verlet on it, and may be "
    "changed. Symplectic and reversible whatever the network.",
    "direct": "Two vectors for each atom, learned without a structure: NEITHER symplectic NOR reversible, a baseline.",
}

#: How to cite: what is behind a kind of map, or a potential.
WORKS = {
    "midpoint": ("F. Bigi, J. Spies, M. Ceriotti, learning the mechanical action", "https://arxiv.org/abs/2508.01068"),
    "discrete": ("J. E. Marsden, M. West, Acta Numerica 10, 357 (2001)", "https://doi.org/10.1017/S096249290100006X"),
    "metals": ("F. Cleri, V. Rosato, Phys. Rev. B 48, 22 (1993)", "https://doi.org/10.1103/PhysRevB.48.22"),
}


def write_page(evidence: Evidence, line: str) -> str:
    """The page as text; `line` is the command that made it."""
    try:
        return _page(evidence, line)
    except (KeyError, TypeError, IndexError, AttributeError) as problem:
        raise DataError(
            f"{evidence.model}, its validation or its runs hold something unexpected ({type(problem).__name__}: "
            f"{problem}): were they written by this version?"
        ) from problem


def _page(evidence: Evidence, line: str) -> str:
    name = evidence.model.name
    sections = [("model", "What it is for", _model(evidence)), ("training", "Training", _training(evidence))]
    if evidence.validation is not None:
        sections += [
            ("structure", "One step, and its structure", measured.step(evidence)),
            ("drift", "Energy drift", measured.drift(evidence)),
            ("equipartition", "Equipartition", measured.equipartition(evidence)),
            ("distributions", "Distributions and spectra", measured.distributions(evidence)),
            ("cost", "Cost", measured.cost(evidence)),
        ]
    sections += [("step", "The step: advice", measured.step_advice(evidence))]
    if evidence.runs:
        sections += [("runs", "Runs", _runs(evidence))]
    sections += [("cite", "How to cite", _cite(evidence)), ("commands", "Commands", _commands(evidence, line))]
    return page(f"{name}: a learned integrator", _head(evidence, name), sections)


def _head(evidence: Evidence, name: str) -> Html:
    blueprint, found = evidence.blueprint, evidence.validation
    numbers = [("step", f"{evidence.step_fs:g} fs"), ("map", f"{blueprint['kind']}, s = {blueprint['stages']}")]
    if found is None:
        error = evidence.training.get("test", {}).get("momentum")
        numbers += [] if error is None else [("error of one step, Δp", f"{100 * error:.2g} %")]
        title = Html("<p><strong>Not validated: no verdict.</strong></p>")
        why = paragraph("What it is good for is not known before it ran beside the base potential:")
        box = Html(f'<div class="verdict">{title}{why}{_validate(evidence)}</div>')
    else:
        verdict, structure = found["verdict"], found["structure"]
        numbers.append(("error of one step, Δp", f"{100 * found['one_step']['momentum']:.2g} %"))
        numbers.append(("symplectic defect", f"{structure['symplectic_defect']:.0e}"))
        hot = [row for row in evidence.rows if "drift" in row]
        if hot:
            T = hot[-1]["temperature_K"]
            numbers.append(
                (f"drift at {T:g} K, meV/atom/ps", f"{hot[-1]['drift']:+.3f} ± {hot[-1]['drift_error']:.3f}")
            )
        mark, kind = ("✓", "good") if verdict["good"] else ("✗", "bad")
        words = verdict["text"][:1].upper() + verdict["text"][1:]
        title = Html(f"<p><strong>{mark} {text(words)}.</strong></p>")
        box = Html(f'<div class="verdict {kind}">{title}{items(verdict["reasons"])}</div>')
    about = paragraph(KINDS.get(blueprint["kind"], ""), soft=True)
    elements = " and ".join(chemical_symbols[Z] for Z in blueprint["species"])
    kind_of = {"direct": "A direct prediction", "potential": "Verlet on a learned potential in steps"}.get(
        blueprint["kind"], "A learned step"
    )
    purpose = paragraph(f"{kind_of} of {_steps(blueprint)} for {elements}.")
    return join([Html(f"<h1>{text(name)}</h1>"), purpose, box, facts(numbers), about])


def _model(evidence: Evidence) -> Html:
    blueprint, training = evidence.blueprint, evidence.training
    masses = ", ".join(f"{chemical_symbols[Z]} ({_mass(blueprint['masses'][Z])} u)" for Z in blueprint["species"])
    weights = sum(tensor.numel() for tensor in evidence.content["weights"].values())
    rows: list[tuple[Any, Any]] = [("elements", masses), ("step", _steps(blueprint))]
    if blueprint["kind"] != "potential":
        rows[-1] = ("step", f"{_steps(blueprint)}, and no other")
    if training.get("temperatures_K"):
        low, high = training["temperatures_K"][0], training["temperatures_K"][-1]
        rows.append(("temperatures in training", f"{low:g} to {high:g} K" if low != high else f"{low:g} K"))
    network = ", ".join(f"{key} {value}" for key, value in blueprint["network"].items())
    rows.append(("network", f"{weights} numbers; {network}" if network else f"{weights} numbers"))
    if blueprint.get("base"):
        rows.append(("base potential it calls", blueprint["base"]))
    rows.append(("checksum (SHA-256)", Html(f"<code>{evidence.checksum[:16]}…</code>")))
    limits = [
        "It knows the compositions, densities and phases that were sampled for it, nothing else. Atoms whose "
        "surroundings lie outside the range of training are warned of in a run, and counted.",
        "Other elements or masses, and numbers that are not finite, are refused.",
    ]
    if evidence.rows:
        tested = ", ".join(f"{row['temperature_K']:g} K" for row in evidence.rows)
        limits.append(
            f"Tested at {tested}, each by one run of {evidence.rows[0]['reference']['ps']:.3g} ps from one start."
        )
    return join([table(("", ""), rows), Html("<h3>Limits</h3>"), items(limits)])


def _training(evidence: Evidence) -> Html:
    training = evidence.training
    if not training.get("curve"):
        return paragraph("The checkpoint does not tell how it was trained.")
    parts: list[Any] = []
    if "updates" in training:
        parts.append(paragraph(f"{training['updates']} updates in {training['seconds'] / 60:.3g} minutes."))
    counts = {part: len(names) for part, names in training.get("stretches", {}).items()}
    if counts:
        stretches = ", ".join(f"{count} for {part}" for part, count in counts.items())
        parts.append(paragraph(f"Reference trajectories, split by stretch: {stretches}."))
    rows = [
        (f"{part} stretches", f"{100 * training[part]['position']:.3g} %", f"{100 * training[part]['momentum']:.3g} %")
        for part in ("validation", "test")
        if part in training
    ]
    parts.append(table(("error of one step", "Δq", "Δp"), rows) if rows else "")
    if "forces" in training:
        rms, energy = 1e3 * training["forces"]["rms"], 1e3 * training["forces"]["energy"]
        parts.append(paragraph(f"Forces are off by {rms:.3g} meV/Å, energies by {energy:.3g} meV/atom (rms)."))
    draw = functools.partial(learning_curve, curve=training["curve"])
    drawn = figure(draw, "Error of one step on the validation stretches, with averaged weights, in float64")
    settings = [(key.replace("_", " "), value) for key, value in training.get("settings", {}).items()]
    parts.append(folded("All settings", table(("setting", "value"), settings)) if settings else "")
    return beside(join(parts), drawn)


def _runs(evidence: Evidence) -> Html:
    parts = []
    for name, found in evidence.runs.items():
        shown = {key: value for key, value in found.items() if key not in ("command", "model_sha256")}
        parts += [
            Html(f"<h3>{text(name)}</h3>"),
            table(("", ""), [line.strip().split("  ", 1) for line in as_text(shown).splitlines()]),
        ]
    return join(parts)


def _cite(evidence: Evidence) -> Html:
    kind, base = evidence.blueprint["kind"], evidence.blueprint.get("base")
    version = evidence.content.get("package_version", metadata.version("actionlearn"))
    lines: list[Any] = [f"actionlearn {version}, model with SHA-256 {evidence.checksum}"]
    keys = ["midpoint"] + (["discrete"] if kind in ("discrete", "processed", "corrected") else [])
    for key in [*keys, *([base] if base in WORKS else [])]:
        lines.append(link(WORKS[key][1], WORKS[key][0]))
    lines.append("The base potential that the reference was sampled with, and what it was fitted to.")
    return items(lines)


def _commands(evidence: Evidence, line: str) -> Html:
    training, found = evidence.training, evidence.validation
    recorded = training.get("command")
    parts = [
        Html("<h3>Training</h3>"),
        command(recorded)
        if recorded
        else join([command(_train(evidence)), paragraph("From its settings; DATA was not recorded.")]),
        Html("<h3>Validation</h3>"),
        _validate(evidence) if found is None else command(found.get("command", "not recorded")),
    ]
    for name, run in evidence.runs.items():
        parts += [Html(f"<h3>{text(Path(name).name)}</h3>"), command(run.get("command", "not recorded"))]
    version = f"Model written by actionlearn {evidence.content.get('package_version', 'of unknown version')}, "
    version += f"page by actionlearn {metadata.version('actionlearn')}."
    return join([*parts, Html("<h3>This page</h3>"), command(line), paragraph(version, soft=True)])


def _train(evidence: Evidence) -> str:
    """The training's command, from what the checkpoint tells of it."""
    blueprint, settings = evidence.blueprint, evidence.training.get("settings", {})
    words = ["actionlearn", "train", "DATA", "--output", evidence.model.name]
    for key in ("kind", "stages", "step_fs", "base", *(["members"] if blueprint.get("members", 1) > 1 else [])):
        words += [] if blueprint.get(key) is None else [f"--{key.replace('_', '-')}", _word(blueprint[key])]
    known = ("minutes", "updates", "learning_rate", "batch_atoms", "window", "patience", "seed")
    network = {("network" if k == "architecture" else k): v for k, v in blueprint["network"].items()}
    pairs = [*network.items(), *((key, settings.get(key)) for key in known)]
    for key, value in pairs:
        words += [] if value is None else [f"--{key.replace('_', '-')}", _word(value)]
    return shlex.join(words)


def _steps(blueprint: dict[str, Any]) -> str:
    if blueprint.get("steps_fs") is None:
        return f"{blueprint['step_fs']:g} fs"
    low, high = blueprint["steps_fs"]
    return f"{low:g} to {high:g} fs"


def _mass(value: float | tuple[float, ...]) -> str:
    """One mass, or several where masses were repartitioned."""
    return f"{value:g}" if isinstance(value, float | int) else " or ".join(f"{mass:g}" for mass in value)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _validate(evidence: Evidence) -> Html:
    folder = evidence.model.with_suffix("").name + "-validation"
    words = ["actionlearn", "validate", str(evidence.model), "DATA", "--output", folder]
    return join(
        [command(shlex.join(words)), command(shlex.join(["actionlearn", "report", str(evidence.model), folder]))]
    )
