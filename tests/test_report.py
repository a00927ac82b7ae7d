"""The page about a model: complete, self-contained, harmless whatever its sources hold, and sound in a real browser."""

import json
import re
import shutil
import warnings
from html.parser import HTMLParser

import ase.io
import numpy as np
import pytest
from browser import needs_browser, open_page, overflow
from test_reference import cluster

from actionlearn import cli
from actionlearn.report import gather
from actionlearn.report.markup import Html, table, text
from actionlearn.report.measured import fastest_period

NASTY = "<img src=x onerror=console.error(1)>&amp;'\"</style><script>console.error(2)</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model hardly trained, its validation and a run, each as the commands write them."""
    folder = tmp_path_factory.mktemp("report")
    structure, data, model = str(folder / "cluster.traj"), str(folder / "set"), str(folder / "model.pt")
    ase.io.write(structure, cluster())
    wishes = "--potential metals --temperature 200 --step-fs 2 --record-every 4 --stretches 4 --frames 21".split()
    wishes += "--equilibrate-ps 0.2 --decorrelate-ps 0.05 --processes 1".split()
    assert cli.main(["sample", structure, "--output", data, *wishes]) == 0
    quick = "--step-fs 16 --updates 12 --channels 4 --hidden 16 --cutoff 4.5 --batch-atoms 32".split()
    assert cli.main(["train", data, "--output", model, *quick]) == 0
    checked = ["validate", model, data, "--output", str(folder / "checked"), "--temperature", "100", "200", "--ps", "2"]
    assert cli.main(checked) == 0
    run = [
        "run",
        structure,
        "--model",
        model,
        "--output",
        str(folder / "run.xyz"),
        "--ps",
        "0.4",
        "--temperature",
        "50",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # twelve updates do not know these atoms well
        assert cli.main([*run, "--potential", "metals"]) == 0
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """The same, to change."""
    return shutil.copytree(made, tmp_path / "copy")


def page_of(folder, *sources):
    assert cli.main(["report", *map(str, sources), "--output", str(folder / "page.html")]) == 0
    return folder / "page.html"


class Strict(HTMLParser):
    """Sees that what is opened is closed, and keeps the tags, the addresses and the text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.addresses, self.ids, self.words = [], set(), [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [(tag, value) for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]
        self.ids += [value for name, value in attrs if name == "id"]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def words(page):
    return " ".join(" ".join(Strict(page).words).split())


def test_a_page_holds_it_all_and_needs_nothing_else(made, tmp_path):
    path = page_of(tmp_path, made / "model.pt", made / "checked", made / "run.xyz")
    page = path.read_text()
    assert 50e3 < path.stat().st_size < 3e6
    seen = Strict(page)
    assert not seen.tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base"}
    assert all(address.startswith("#") or tag == "a" for tag, address in seen.addresses)
    assert not re.search(r"@import|url\((?!#)", page) and 'name="viewport"' in page and "default-src 'none'" in page
    assert len(seen.ids) == len(set(seen.ids))
    anchors = {address[1:] for tag, address in seen.addresses if tag == "a" and address.startswith("#")}
    assert anchors == {
        "model", "training", "structure", "drift", "equipartition", "distributions", "cost", "step", "runs", "cite",
        "commands",
    }  # fmt: skip
    assert anchors <= set(seen.ids)
    told = words(page)
    found = json.loads((made / "checked" / "validation.json").read_text())
    assert found["verdict"]["text"][1:] in told and all(reason in told for reason in found["verdict"]["reasons"])
    for line in (found["command"], json.loads((made / "run.xyz.json").read_text())["command"]):
        assert line in told
    assert f"actionlearn train {made / 'set'}" in told and f"actionlearn report {made / 'model.pt'}" in told
    assert "100 K, 200 K" in told and "arXiv" in page or "arxiv.org" in page


def test_a_folder_stands_for_what_is_in_it(made, tmp_path):
    assert words(page_of(tmp_path, made).read_text()).count("actionlearn validate") == 1
    found = gather([made / "checked"])  # the model is found through the validation
    assert found.model == made / "model.pt" and not found.runs and len(found.rows) == 2
    assert gather([made / "run.xyz.json"]).validation is None


def test_without_a_validation_it_says_so_and_how(made, tmp_path, capsys):
    told = words(page_of(tmp_path, made / "model.pt").read_text())
    assert "Not validated: no verdict." in told and f"actionlearn validate {made / 'model.pt'} DATA" in told
    assert "so there is no verdict" in capsys.readouterr().out
    assert not (made / "model.html").exists()


def test_with_data_it_validates_first_and_not_twice(copy, capsys, monkeypatch):
    line = ["report", str(copy / "model.pt"), "--data", str(copy / "set"), "--temperature", "200", "--ps", "2"]
    assert cli.main(line) == 0
    assert (copy / "model-validation" / "200K.json").exists() and "VERDICT" in capsys.readouterr().out
    monkeypatch.setattr("actionlearn.validation.measure.at_temperature", None)
    assert cli.main(line) == 0
    assert "Equipartition" in (copy / "model.html").read_text()


def test_runs_that_failed_are_shown_as_such(copy, tmp_path):
    path = copy / "checked" / "200K.json"
    kept = json.loads(path.read_text())
    row = kept["result"]
    kept["result"] = {
        **{name: row[name] for name in ("temperature_K", "ms_per_step", "reference", "series")},
        "ps": 0.3,
        "failure": "the energy left its start",
    }
    path.write_text(json.dumps(kept))
    told = words(page_of(tmp_path, copy / "model.pt", copy / "checked").read_text())
    assert "fails after 0.3 ps: the energy left its start" in told and "200 K, fails" in told


def test_text_from_files_stays_text(copy, tmp_path):
    (copy / "model.pt").rename(copy / "<b>&amp;.pt")
    summary, checked = copy / "run.xyz.json", copy / "checked" / "validation.json"
    found = json.loads(summary.read_text())
    summary.write_text(json.dumps({**found, "structure": NASTY, "command": NASTY, NASTY: 1.0}))
    found = json.loads(checked.read_text())
    found["verdict"]["reasons"] = [NASTY]
    checked.write_text(json.dumps({**found, "command": NASTY}))
    path = page_of(tmp_path, copy / "<b>&amp;.pt", copy / "checked", summary)
    seen = Strict(path.read_text())
    assert not seen.tags & {"script", "img", "b"}
    assert "".join(seen.words).count("onerror=console.error(1)") == 5 and "<b>&amp;.pt" in seen.words
    assert (
        text("<&'\">") == "&lt;&amp;&#x27;&quot;&gt;"
        and text(Html("<p>")) == "<p>"
        and "<td>&lt;" in table([], [["<" * 20]])
    )


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["nosuch.pt"], "there is no nosuch.pt"),
        (["set"], "no checkpoint in set: give the one to report"),
        (["cluster.traj"], "is no checkpoint"),
        (["model.pt", "other.pt"], "several checkpoints, model.pt, other.pt, in"),
        (["other.pt", "checked"], "validation.json belongs to another model"),
        (["other.pt", "run.xyz"], "run.xyz belongs to another model"),
        (["model.pt", "checked", "again"], "several validations"),
        (["model.pt", "broken"], "is not what `actionlearn validate` writes"),
        (["model.pt", "cut"], "hold something unexpected (KeyError: 'position')"),
        (["model.pt", "--output", "nosuch/page.html"], "there is no folder nosuch"),
        (["model.pt", "checked", "--data", "set"], "there is a validation already"),
    ],
)
def test_bad_input_is_one_line(copy, capsys, monkeypatch, sources, message):
    monkeypatch.chdir(copy)
    other = ["train", "set", "--output", "other.pt", "--step-fs", "16", "--updates", "1", "--channels", "2"]
    assert cli.main(other) == 0
    for name in ("again", "broken", "cut"):
        shutil.copytree("checked", name)
    (copy / "broken" / "validation.json").write_text("[1, 2]")
    found = json.loads((copy / "cut" / "validation.json").read_text())
    (copy / "cut" / "validation.json").write_text(json.dumps({**found, "one_step": {}}))
    capsys.readouterr()
    assert cli.main(["report", *sources]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("actionlearn report: ") and message in lines[0]
    assert not list(copy.glob("*.html"))


def row(at_limit, edge, temperature_K):
    """A flat spectrum up to an edge, cm⁻¹."""
    per_cm = np.arange(0.0, 700.0, 0.5)
    density = np.where(per_cm <= edge, 1.0, 0.0)
    series = {"per_cm": per_cm.tolist(), "reference_density": density.tolist()}
    spectrum = {"at_limit": at_limit, "nyquist_per_cm": 700.0}
    return {"radial": {}, "spectrum": spectrum, "series": series, "temperature_K": temperature_K}


def test_the_fastest_period_is_known_only_where_nothing_is_folded():
    T, temperature = fastest_period([row(0.0, 300.0, 300.0), row(0.0, 400.0, 700.0)])
    assert T == pytest.approx(1e15 / (2.99792458e10 * 400.0 * 0.999), rel=1e-3) and temperature == 700.0
    assert fastest_period([row(0.0, 300.0, 300.0), row(0.05, 400.0, 700.0)]) is None
    assert fastest_period([]) is None


@needs_browser
def test_in_a_browser_the_console_is_silent_and_nothing_sticks_out(made, copy, tmp_path):
    path = page_of(tmp_path, made / "model.pt", made / "checked", made / "run.xyz")
    dom, complaints = open_page(path)
    assert complaints == [] and dom.count("<svg") >= 5 and "</html>" in dom
    assert overflow(path, 1000) <= 0 and overflow(path, 360) <= 0
    loud = tmp_path / "loud.html"
    loud.write_text('<html><body><p style="width: 9000px">wide</p><script>console.error("seen")</script></body></html>')
    assert len(open_page(loud)[1]) == 1 and overflow(loud, 360) > 8000
