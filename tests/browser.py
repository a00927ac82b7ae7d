"""A page in a real browser, without a screen: what its console says, and how wide it is on a screen of some width."""

import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

TELL = """<script>addEventListener("load", () => parent.postMessage(
  `${document.documentElement.scrollWidth} of ${document.documentElement.clientWidth}`, "*"))</script>"""
FRAME = """<html><body><script>addEventListener("message", told => document.title = told.data)</script>
<iframe src="{name}" style="width: {width}px; height: 900px; border: 0"></iframe></body></html>"""


def open_page(path):
    """The page's document after it was drawn, and what its console says."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom", "--enable-logging=stderr"]
    options += ["--window-size=1200,1600", f"--user-data-dir={path.parent / 'profile'}"]
    done = subprocess.run([CHROMIUM, *options, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def overflow(path, width):
    """By how many pixels a page is wider than the screen; in a frame, since windows have a least width."""
    measured, frame = path.with_name("measured.html"), path.with_name("frame.html")
    text = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text())  # which forbids scripts, this one too
    measured.write_text(text.replace("</body>", TELL + "</body>"))
    frame.write_text(FRAME.format(name=measured.name, width=width))
    wide, screen = map(int, re.search(r"<title>(\d+) of (\d+)", open_page(frame)[0]).groups())
    assert width - 20 <= screen <= width  # a scroll bar takes some
    return wide - screen
