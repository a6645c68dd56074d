"""What the package promises as a package: pins, licences, a quick command line, and imports that run one way."""

from __future__ import annotations

import ast
import graphlib
import importlib.metadata
import os
import re
import resource
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "semkey"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# A package may import those above it and those beside it, never those below. `semkey/__init__.py` is the facade over
# all of them and stands outside; `textfiles` reads lines, for any package that reads or writes text formats.
ORDER = (
    {"errors", "runtime", "lazy"},
    {"untrusted", "schema", "temporaries"},
    {"files", "textfiles", "geometry", "downloads", "settings", "cluster"},
    {"metrics", "images"},
    {"backbones"},
    {"model"},
    {"export"},
    {"runtimes"},
    {"extractors"},
    {"matching"},
    {"losses", "datasets", "rendering", "visualization", "surfaces"},
    {"slam", "training"},
    {"evaluation", "interop"},
    {"ui"},
    {"cli"},
    {"__main__"},
)
LEVELS = {package: level for level, packages in enumerate(ORDER) for package in packages}

# Import names of the declared dependencies, where the two differ.
IMPORT_NAMES = {
    "opencv-python-headless": "cv2",
    "pyyaml": "yaml",
    "lightning-fabric": "lightning_fabric",
    "rerun-sdk": "rerun",
    "scikit-image": "skimage",
}

PERMISSIVE = re.compile(
    r"\b(MIT|MIT-CMU|BSD|BSD-[23]-Clause|0BSD|ISC|ISCL|Apache(-2\.0)?|PSF(-2\.0)?|Python Software Foundation|Zlib|"
    r"CC0-1\.0|BSL-1\.0|MPL-2\.0)\b"
)
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|GNU|SSPL|EUPL)", re.IGNORECASE)


# -- pins ----------------------------------------------------------------------------------------------------------


def locked() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [Requirement(line.rstrip("\\").strip()) for line in lines if line[:1].isalnum()]


def direct_dependencies() -> list[Requirement]:
    """Those of the package and of the extras that the development environment has: all but the SDKs of cameras."""
    groups = PROJECT["optional-dependencies"]
    (inner,) = [Requirement(line).extras for line in groups["dev"] if Requirement(line).name == PROJECT["name"]]
    assert set(groups) - inner - {"dev"} == {"realsense", "oak"}
    extras = [line for extra in ("dev", *sorted(inner)) for line in groups[extra]]
    requirements = [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]
    return [requirement for requirement in requirements if requirement.name != PROJECT["name"]]


def test_the_lock_pins_every_package_exactly() -> None:
    for requirement in locked():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        assert "*" not in specifier.version, requirement


@pytest.mark.parametrize("requirement", direct_dependencies(), ids=lambda requirement: requirement.name)
def test_the_lock_satisfies_every_direct_dependency(requirement: Requirement) -> None:
    pins = [pin for pin in locked() if pin.name == canonicalize_name(requirement.name)]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    assert len(here) == 1, f"{requirement.name}: run `make lock`"
    (specifier,) = here[0].specifier
    assert requirement.specifier.contains(specifier.version), f"{requirement} against {here[0]}: run `make lock`"


def test_the_lock_has_no_gpu_packages_and_no_addresses() -> None:
    names = {requirement.name for requirement in locked()}
    assert not {name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))}
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(index|extra-index|find-links)", text, re.MULTILINE)


def test_the_lock_has_a_hash_for_everything_but_torch() -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    without = {block.split("==")[0] for block in blocks if "--hash=sha256:" not in block}
    assert without == {"torch"}


def test_the_torch_pin_is_the_constraint_of_the_project() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    (pin,) = [str(requirement) for requirement in locked() if requirement.name == "torch"]
    assert tool["constraint-dependencies"] == [pin]
    assert {f"{entry['name']}=={entry['version']}" for entry in tool["dependency-metadata"]} == {pin}


# -- metadata and licences -----------------------------------------------------------------------------------------


def test_the_metadata_agree_with_the_files() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert (ROOT / "README.md").is_file()
    assert PROJECT["dynamic"] == ["readme"]
    assert {"Documentation", "Changelog"} <= PROJECT["urls"].keys()
    site = re.search(r"^site_url: (\S+)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert site is not None
    assert site[1] == PROJECT["urls"]["Documentation"]
    from semkey.cli.main import DOCUMENTATION

    assert PROJECT["urls"]["Documentation"] == DOCUMENTATION
    assert PROJECT["scripts"] == {"semkey": "semkey.cli.main:main"}
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_version_is_stated_the_same_everywhere() -> None:
    import semkey

    assert semkey.__version__ == PROJECT["version"]


def test_the_wheel_holds_the_library_and_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = pytest.importorskip("hatchling.build", reason="hatchling comes with the dev extra")
    monkeypatch.chdir(ROOT)
    wheel = tmp_path / build.build_wheel(str(tmp_path))
    assert wheel.name == f"semkey-{PROJECT['version']}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = message_from_bytes(archive.read(f"semkey-{PROJECT['version']}.dist-info/METADATA"))
    description = str(metadata.get_payload())
    assert "](https://semkey." in description
    assert not re.search(r"\]\((?!https://)", description), "on the index page relative links lead nowhere"
    assert {"semkey/__init__.py", "semkey/py.typed", "semkey/cli/main.py"} <= names
    assert {f"semkey/configs/{file.name}" for file in (ROOT / "configs").iterdir()} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    weights = [name for name in names if name.startswith("semkey/weights/") and name.endswith(".safetensors")]
    assert weights
    assert all(name.startswith(("semkey/", "semkey-")) and "__pycache__" not in name for name in names)


def runtime_closure() -> set[str]:
    names, waiting = set(), [Requirement(line) for line in PROJECT["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in names or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        if name.startswith(("nvidia-", "cuda-", "triton")):
            continue  # NVIDIA's own licence: present only where a user asked for torch's GPU build
        names.add(name)
        waiting += [Requirement(line) for line in importlib.metadata.requires(name) or []]
    return names


@pytest.mark.parametrize("name", sorted(runtime_closure()))
def test_runtime_dependencies_have_permissive_licences(name: str) -> None:
    metadata = importlib.metadata.metadata(name)
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License")]
    # Some packages paste the whole licence into the field: its first lines name it.
    field = "\n".join((metadata["License"] or "").splitlines()[:3])
    stated = " ".join([metadata["License-Expression"] or "", field, *classifiers])
    assert PERMISSIVE.search(stated), f"{name}: {stated!r}"
    assert not COPYLEFT.search(stated), f"{name}: {stated!r}"


# -- the source ----------------------------------------------------------------------------------------------------


def source_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import in a file, those inside functions too."""
    package = ("semkey", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            if module == "semkey":
                yield from ((node.lineno, f"semkey.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def semkey_package(path: Path) -> str:
    """The part of semkey a file belongs to: its first folder, or its own name at the top."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def semkey_imports() -> Iterator[tuple[str, str, str]]:
    """(place, importing package, imported package) of every import within semkey but those of the facade."""
    for path in source_files():
        importer = semkey_package(path)
        if importer in ("__init__", "__main__"):
            continue
        for line, module in imported_modules(path):
            head, _, rest = module.partition(".")
            target = rest.split(".")[0]
            # The facade (`semkey.load` ...) is for the command line alone; the version is free for all.
            if head == "semkey" and target != "__version__" and (target in LEVELS or importer != "cli"):
                yield f"{path.relative_to(ROOT)}:{line}: imports {module}", importer, target


def test_every_package_has_its_place_in_the_order() -> None:
    packages = {semkey_package(path) for path in source_files()} - {"__init__", "__main__"}
    assert packages <= LEVELS.keys(), "give it a place in ORDER"


def test_imports_run_one_way() -> None:
    wrong = [place for place, importer, target in semkey_imports() if LEVELS.get(target, 99) > LEVELS[importer]]
    assert not wrong, "\n".join(wrong)


def test_packages_beside_each_other_do_not_import_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for _, importer, target in semkey_imports():
        if importer != target:
            graph.setdefault(importer, set()).add(target)
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


# Rooms of a package, in the order in which they may import each other; a file beside the rooms stands for itself.
ROOMS = {
    "slam": (
        {"config", "records", "timing"},
        {"solvers"},
        {"frames"},
        {"map"},
        {"result", "pipeline"},
        {"events"},
        {"placing"},
        {"loops", "mapping"},
        {"tracking"},
        {"output"},
        {"engine"},
        {"system"},
        {"runner"},
    ),
    "evaluation": ({"data"}, {"running"}, {"report"}, {"kinds", "slam"}),
    "datasets": (
        {"cameras", "clocks", "plausibility", "sequence"},
        {"pairing"},
        {"readers"},
        {"bags", "live"},
        {"opening"},
    ),
    "training": (
        {"stage_config", "data"},
        {"config", "feature_folder", "history", "resumable"},
        {"objectives"},
        {"processes", "backbone_feed", "checkpointing", "stages"},
        {"feeding", "keeping", "validation"},
        {"stage_events"},
        {"loop", "report"},
        {"fit", "matcher"},
        {"refiner"},
    ),
}
MOST_FILES = 20


def file_imports() -> dict[str, set[str]]:
    """By module of semkey, the modules of semkey that it imports, those inside functions and for types too."""
    modules = {module_name(path): path for path in source_files()}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {target if target in modules else node.module for target in inner}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        graph[name] = {target for target in found if target in modules and target != name}
    return graph


def module_name(path: Path) -> str:
    parts = ("semkey", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_files_import_each_other_in_a_circle() -> None:
    facades = {module_name(path) for path in source_files() if path.name == "__init__.py"}
    graph = {name: targets - facades for name, targets in file_imports().items() if name not in facades}
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_one_way(package: str) -> None:
    levels = {room: level for level, rooms in enumerate(ROOMS[package]) for room in rooms}
    wrong = []
    for importer, targets in file_imports().items():
        if not importer.startswith(f"semkey.{package}."):
            continue
        room = importer.split(".")[2]
        assert room in levels, f"give {package}/{room} a place in ROOMS"
        for target in targets:
            other = target.split(".")[2] if target.startswith(f"semkey.{package}.") else room
            if other != room and levels[other] >= levels[room]:
                wrong.append(f"{importer} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_no_folder_is_crowded() -> None:
    for root in (SOURCE, ROOT / "tests"):
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            files = [path.name for path in folder.glob("*.py")]
            assert len(files) <= MOST_FILES, f"{folder.relative_to(ROOT)} holds {len(files)} files"


# Spelt as the libraries spell it whose names these stand beside; see CONTRIBUTING.
AMERICAN = re.compile(r"normalize|optimizer|locali[sz]|optimize$", re.IGNORECASE)


def test_names_are_spelt_the_british_way() -> None:
    names = {
        node.name
        for path in source_files()
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    american = {name for name in names if re.search(r"(?<![sS])iz(e|er|ed|ing|ation)s?(_|$)|behavior|neighbor", name)}
    assert {name for name in american if not AMERICAN.search(name)} == set()


def test_the_library_imports_only_what_it_declares() -> None:
    names = [Requirement(line).name for line in PROJECT["dependencies"]]
    allowed = {IMPORT_NAMES.get(name, name) for name in names} | sys.stdlib_module_names | {"semkey"}
    extras = PROJECT["optional-dependencies"]
    lazily = [Requirement(line).name for extra in extras.keys() - {"dev", "docs"} for line in extras[extra]]
    optional = {IMPORT_NAMES.get(name, name) for name in lazily}
    wrong = []
    for path in source_files():
        lazy = lazy_lines(path)
        for line, module in imported_modules(path):
            package = module.split(".")[0]
            if package not in allowed and not (package in optional and line in lazy):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {module}")
    assert not wrong, "\n".join(wrong)


def lazy_lines(path: Path) -> set[int]:
    """Lines of the imports that do not run with the module: inside functions, or for the type checker alone."""
    lazy = set()
    for node in ast.walk(ast.parse(path.read_text())):
        for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if for_types or isinstance(node, ast.FunctionDef):
            lazy |= {inner.lineno for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom)}
    return lazy


def test_only_the_command_line_prints() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in source_files()
        if semkey_package(path) != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_names_a_folder_of_one_machine() -> None:
    pattern = re.compile(r"(?<![\w.])/(home|root|work|Users|opt)/\w")
    suffixes = {".py", ".sh", ".md", ".toml", ".lock"}
    folders = ("src", "tests", "scripts", "benchmarks", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    files += [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / "requirements.lock"]
    wrong = [
        f"{path.relative_to(ROOT)}: {match.group()}" for path in files if (match := pattern.search(path.read_text()))
    ]
    assert not wrong, "\n".join(wrong)


# -- the command line ----------------------------------------------------------------------------------------------

HEAVY = {
    "torch",
    "cv2",
    "matplotlib",
    "scipy",
    "kornia",
    "poselib",
    "yaml",
    "lightning_fabric",
    "tensorboard",
    "transformers",
    "rerun",
    "rosbags",
    "h5py",
    "pycolmap",
    "ray",
    "onnxruntime",
    "gradio",
}


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "from semkey.cli.main import main; main()", "--help"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(SOURCE.parent)
    seconds = []
    for _ in range(3):  # the first run may write byte code
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0, result.stderr[-2000:]
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "slam" in result.stdout
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    assert "typer" in imported, "importtime was not understood"
    assert not imported & HEAVY
    assert min(seconds) < 1.5, seconds
