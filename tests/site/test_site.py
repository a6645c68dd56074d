"""The site of the documentation: built without a warning, whole, and without anything from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest

import semkey

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; mkdocs.yml makes every warning an error."""
    pytest.importorskip("mkdocs", reason="mkdocs comes with the docs extra")
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "scripts" / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page: Path) -> str:
    """What a reader sees, without tags."""
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_of_the_docs_is_there(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.parent.relative_to(site) for path in site.rglob("index.html")}
    assert {page for page in pages if page.name != "index"} <= built
    assert len(pages) > 25
    home = text_of(site / "index.html")
    assert "pip install semkey" in home
    for page in site.rglob("*.html"):
        assert not re.search(r"<!-- (readme|commands|names|file)", page.read_text(encoding="utf-8")), page


def test_the_reference_has_every_public_name_with_its_arguments(site: Path) -> None:
    page = site / "reference" / "python" / "index.html"
    html = page.read_text(encoding="utf-8")
    for name in dir(semkey):
        if name != "__version__":
            full = f"{getattr(semkey, name).__module__}.{getattr(semkey, name).__qualname__}"
            assert re.search(rf'id="(semkey\.{name}|{re.escape(full)})"', html), name
    assert "at most this many keypoints per image" in text_of(page)
    assert ">>>" in text_of(page)


def test_the_reference_has_every_command_with_its_options(site: Path) -> None:
    text = text_of(site / "reference" / "commands" / "index.html")
    for title in ("semkey detect", "semkey export map", "semkey eval posed-pairs", "semkey slam", "semkey doctor"):
        assert title in text
    for option in ("--layout", "--save-map", "--max-keypoints", "--occupancy"):
        assert option in text
    assert "[bold]" not in text


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loads = re.findall(r'<(?:script|img|iframe|link)[^>]*\s(?:src|href)="?(https?:)?//[^">\s]*', html)
        canonical = len(re.findall(r'<link[^>]*rel="?canonical', html))
        assert len(loads) <= canonical, f"{page.relative_to(site)} loads from elsewhere"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_a_new_public_name_needs_its_place(hooks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "::: semkey.load\n" in list(hooks.names())
    monkeypatch.setitem(hooks.GROUPS, "Features", ["load"])
    with pytest.raises(ValueError, match="Detector"):
        list(hooks.names())


def test_help_of_a_command_as_markdown(hooks: ModuleType) -> None:
    text = "Do a thing\nwell.\n\n[bold]Examples[/]\n\nsemkey do a.jpg\n\nsemkey do b.jpg --very\n    long"
    assert hooks.prose(text) == "Do a thing well.\n\n```sh\nsemkey do a.jpg\nsemkey do b.jpg --very long\n```"
    assert hooks.markup("see [bold]x[/] <y>") == "see **x** &lt;y&gt;"
    assert hooks.cell("a | b\n c") == "a \\| b c"


def test_links_of_readme_lead_to_files() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert link.startswith("https://") or (ROOT / link).is_file(), f"{page}: {link}"


def test_prose_keeps_to_120_characters() -> None:
    """Tables and code, which break nowhere, may be longer."""
    long = []
    for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        in_code = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            in_code ^= line.lstrip().startswith("```")
            if len(line) > 120 and not in_code and not line.lstrip().startswith(("|", "<!--", "![")):
                long.append(f"{page.relative_to(ROOT)}:{number}: {len(line)}")
    assert not long, "\n".join(long)
