"""`make docs`: every page is built, and no link inside the project leads nowhere."""

import re
import runpy
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, ".ci/docs.py", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - begin < 60, "a minute, on a shared machine too"
    return folder


def targets(text):
    return {unquote(path) for path in re.findall(r'(?:href|src)="([^"]+)"', text) if not re.match(r"[a-z]+:", path)}


def anchors(page):
    return set(re.findall(r'id="([^"]+)"', page.read_text(encoding="utf-8")))


def broken(page):
    """Links of a page to a file that is not there, or to a place in it that is not."""
    found = []
    for link in targets(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and target.suffix == ".html" and anchor not in anchors(target)):
            found.append(link)
    return found


def test_no_link_of_a_page_is_broken(site):
    pages = [page for page in site.rglob("*.html") if "api" not in page.relative_to(site).parts]
    assert len(pages) > 15
    assert {page.name: found for page in pages if (found := broken(page))} == {}


def test_a_broken_link_would_be_seen(site, tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html">b</a> <a href="#c">c</a> <a href="https://example.org">d</a>')
    assert sorted(broken(tmp_path / "a.html")) == ["#c", "b.html"]


def test_the_api_has_a_page_for_every_module(site):
    modules = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "algospace").rglob("*.py")]
    for module in modules:
        name = module.parent if module.name == "__init__" else module
        assert (site / "api" / f"{name}.html").is_file(), name
    assert "triple barrier" in (site / "api/algospace/marl/exams.html").read_text()


def test_every_markdown_file_is_a_page(site):
    names = runpy.run_path(str(ROOT / ".ci/docs.py"))["pages"]()
    assert {path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")} <= set(names)
    assert all((site / name.with_suffix(".html")).is_file() for name in names)
