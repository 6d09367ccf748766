"""Properties of the code base: light imports, length of files, pinned packages, errors that are raised.

Who may import whom is checked by `lint-imports`, from the contract in pyproject.toml.
"""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fixtures.waiting import HANG_S
from likeness import errors

ROOT = Path(__file__).parents[1]
LIGHT = ("artifacts", "cli", "config", "http", "photos", "service", "storage")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "handler", "processor", "misc"}
MACHINE_PATH = re.compile(r"(?<![\w.~}-])/(?:work|root|home)/")


def python_files() -> list[Path]:
    return sorted(path for folder in ("src", "recipes", "bench") for path in (ROOT / folder).rglob("*.py"))


def pins() -> dict[str, str]:
    """Package -> version, as constraints.txt has it."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    split = (line.split("==") for line in lines if line)
    return {str(canonicalize_name(name)): version for name, version in split}


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_does_not_import_torch(module: str) -> None:
    if importlib.util.find_spec(f"likeness.{module}") is None:
        pytest.skip(f"likeness.{module} is not built yet")
    code = f"import sys, likeness.{module}; sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src", timeout=HANG_S)
    assert ran.returncode == 0, ran.stderr


def test_no_module_is_named_for_nothing() -> None:
    assert [str(path) for path in python_files() if VAGUE_NAMES & {path.stem, path.parent.name}] == []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the project is not known")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    found = []
    for name in filter(None, listed):
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):  # pictures and weights; deleted; a submodule
            continue
        if MACHINE_PATH.search(text):
            found.append(name)
    assert found == []


def error_classes() -> list[type[errors.LikenessError]]:
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    return [item for item in classes if issubclass(item, errors.LikenessError)]


def test_the_tree_of_errors_is_drawn_whole_with_every_code() -> None:
    text = errors.__doc__ or ""
    drawn = set(re.findall(r"── (\w+)", text)) | {"LikenessError"}
    assert drawn == {error.__name__ for error in error_classes()}
    codes = set(re.findall(r"[A-Z]\w+", " ".join(re.findall(r"\[([^\]]*)\]", text))))
    assert codes == codes_in_source()


def codes_in_source() -> set[str]:
    """Codes that calls of error classes are given, beside the names of the classes."""
    names = {error.__name__ for error in error_classes()}
    calls = [node for path in (ROOT / "src").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    return {
        word.value.value
        for node in calls
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
        for word in node.keywords
        if word.arg == "code" and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)
    }


def test_everything_asked_for_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(text) for texts in (project["dependencies"], *extras.values()) for text in texts]
    pinned = pins()
    wrong = [str(item) for item in asked if not item.specifier.contains(pinned.get(canonicalize_name(item.name), "0"))]
    assert wrong == []


def test_the_pins_are_what_these_tests_run_with() -> None:
    installed = {str(canonicalize_name(item.metadata["Name"])): item.version for item in metadata.distributions()}
    differing = {
        name: (version, installed[name])
        for name, version in pins().items()
        if name in installed and installed[name].partition("+")[0] != version
    }
    assert differing == {}


def test_every_direct_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    explained = (ROOT / "docs" / "dependencies.md").read_text()
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    names = [Requirement(text).name for text in texts]
    assert [name for name in names if name != project["name"] and f"| `{name}` |" not in explained] == []
