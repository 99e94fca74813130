"""The site of the docs: every page is in it, its reference is complete, and a broken link fails."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trl_teamtr


ROOT = Path(__file__).parents[1]
CONFIG = (ROOT / "mkdocs.yml").read_text()


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r"docs/(\w+\.md)$", CONFIG, re.MULTILINE))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_reference_has_all_that_the_package_offers():
    named = set(re.findall(r"^::: trl_teamtr\.(\w+)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE))
    assert named == set(trl_teamtr.__all__)


def make_docs(folder):
    return subprocess.run(
        ["make", "docs", f"PYTHON={sys.executable}"], cwd=folder, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of what `make docs` reads, with its environment."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "examples", "benchmarks/gpu", "trl_teamtr"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    names = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")
    for name in (*names, "mkdocs.yml", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_it_is_built_without_a_warning_and_fails_with_a_broken_link(copy):
    done = make_docs(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING -" not in done.stdout + done.stderr
    page = (copy / "build" / "site" / "docs" / "reference" / "index.html").read_text()
    for name in trl_teamtr.__all__:
        assert f'id="trl_teamtr.{name}"' in page
    assert "Parameters that control the trust region" in page and "trust_region_radius" in page
    assert "[<code>" not in page and "*optional*" not in page  # what only TRL's doc builder reads
    with open(copy / "docs" / "tasks.md", "a") as file:
        file.write("\n[one](nowhere.md), [another](teams.md#no-such-heading)\n")
    done = make_docs(copy)
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr and "no-such-heading" in done.stderr
