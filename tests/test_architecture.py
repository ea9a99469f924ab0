"""The order of packages and rooms, docstrings, what may be named in the repository, and how fast the CLI starts."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT: dict[str, set[str]] = {
    "schemas": set(),
    "interp_model": {"schemas"},
    "workers": {"schemas", "interp_model"},
    "orchestrator": {"schemas", "interp_model", "workers"},
    "orch": {"schemas", "interp_model", "workers", "orchestrator"},
}
FORBIDDEN_LIBRARIES = {
    "schemas": {"torch", "numpy", "ray", "mlflow", "typer"},
    "interp_model": {"ray", "mlflow", "typer"},
    "workers": {"typer"},
    "orchestrator": {"torch", "torchvision"},
    "orch": {"typer"},
}
ROOMS: dict[str, list[set[str]]] = {
    "orchestrator": [
        {"cli"}, {"services"}, {"checkup"}, {"recovery"}, {"execution"}, {"report"}, {"planning"}, {"ledger"},
        {"settings", "wording", "import_path", "late_modules"}, {"yaml_text"},
    ],
    "workers": [
        {"actor", "node_facts"}, {"job"}, {"outcome"}, {"figures", "weights", "models"}, {"evaluation"}, {"tracking"},
        {"training"},
        {"data", "checkpoints"}, {"objects"},
        {"files", "file_locks", "loopback", "secret_files", "code_home", "node_folders"},
    ],
}  # fmt: skip
"""From the top down: a room may import those below it, and none beside or above it."""
LOCAL = re.compile(
    r"(?<![\w.~])/(?:home|root|Users|work|workspace|opt)/\w"  # a path of one machine
    r"|\b(?:[\w-]+\.)*(?:pypi|pythonhosted|artifactory|nexus)\.(?:org|com|io|net)\b"
    r"|--(?:extra-)?index[-]url|--find[-]links"  # a registry
)
HEAVY = ("torch", "ray", "mlflow", "boto3", "matplotlib", "cv2", "pandas")


def imported_roots(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    from_ = {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    return {name.split(".")[0] for name in plain | from_}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    not_allowed = (set(MAY_IMPORT) - MAY_IMPORT[package] - {package}) | FORBIDDEN_LIBRARIES[package]
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not imported_roots(path) & not_allowed, path.relative_to(ROOT)


def imported_rooms(path: Path, package: str) -> set[str]:
    """Rooms of a package that a file of it imports, in whichever form."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            rooms.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith(f"{package}.")}
    return rooms


def room_of(path: Path, package: str) -> str:
    return path.relative_to(ROOT / package).parts[0].removesuffix(".py")


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_imports_only_rooms_below_it(package: str) -> None:
    level = {room: height for height, rooms in enumerate(reversed(ROOMS[package])) for room in rooms}
    for path in (ROOT / package).rglob("*.py"):
        room = room_of(path, package)
        if room == "__init__":
            continue
        assert room in level, f"{path.relative_to(ROOT)} is in no room of ROOMS"
        above = {other for other in imported_rooms(path, package) - {room} if level[other] >= level[room]}
        assert not above, path.relative_to(ROOT)


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_says_what_it_decides(package: str) -> None:
    for folder in {path.parent for path in (ROOT / package).rglob("*.py")}:
        sentence = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert sentence, folder.relative_to(ROOT)


def test_a_command_group_has_one_name_in_every_layer() -> None:
    folders = (ROOT / "orchestrator/cli", ROOT / "orchestrator/cli/text", ROOT / "orchestrator/services")
    cli, text, services = ({path.stem for path in folder.glob("[!_]*")} for folder in folders)
    helpers = {"completion", "console", "data_progress", "layout", "main", "options", "shell_scripts", "streams"}
    groups = cli - helpers - {"text"}
    assert groups <= text
    assert text <= services


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_file_says_in_a_sentence_what_it_decides(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        source = path.read_text()
        assert not source.strip() or ast.get_docstring(ast.parse(source)), path.relative_to(ROOT)


def public_definitions(path: Path) -> dict[str, bool]:
    """Return the public functions, classes and methods of a file, and whether each has a docstring."""
    found: dict[str, bool] = {}

    def look(node: ast.Module | ast.ClassDef, prefix: str) -> None:
        for child in node.body:
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and child.name[0] != "_":
                name = f"{prefix}{child.name}"
                found[name] = found.get(name, True) and ast.get_docstring(child) is not None
                if isinstance(child, ast.ClassDef):
                    look(child, f"{name}.")

    look(ast.parse(path.read_text()), "")
    return {f"{path.relative_to(ROOT)}:{name}": has for name, has in found.items()}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_public_definitions_have_docstrings(package: str) -> None:
    found: dict[str, bool] = {}
    for path in (ROOT / package).rglob("*.py"):
        found |= public_definitions(path)
    assert [name for name, has in found.items() if not has] == []


def test_the_page_on_architecture_has_every_room() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    (tree,) = re.findall(r"^```text\n(orchestrator/\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    named = {line.split("/")[0].strip() for line in tree.splitlines() if re.match(r" +\w+/", line)}
    packages = ("orchestrator", "workers", "interp_model")
    rooms = {path.parent.name for package in packages for path in (ROOT / package).rglob("*/__init__.py")}
    assert named == rooms - set(packages)
    files = {f"{room}.py" for rooms in ROOMS.values() for level in rooms for room in level} - {f"{n}.py" for n in named}
    assert all(file in tree for file in files)


def test_the_repository_names_no_path_of_a_machine_and_no_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("no git repository")
    paths = [ROOT / name for name in listed.stdout.splitlines() if not name.endswith((".png", ".jpg"))]
    for path in paths:
        if path.is_file():
            found = LOCAL.search(path.read_text(errors="replace"))
            assert not found, f"{path.relative_to(ROOT)}: {found[0] if found else ''}"


def test_every_library_that_is_imported_is_declared() -> None:
    """What another library happens to bring along may go with its next version."""
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in lines}
    brought_by = packages_distributions()
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            for name in imported_roots(path) - set(MAY_IMPORT) - sys.stdlib_module_names:
                makers = {maker.lower().replace("_", "-") for maker in brought_by[name]}
                assert makers & declared, f"{name}, which {path.relative_to(ROOT)} imports"


def test_every_test_that_a_guarantee_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/guarantees.md").read_text())
    assert len(named) > 30
    for file, name in named:
        assert re.search(rf"^(def {name}\(|class {name}\b|{name} = )", (ROOT / file).read_text(), re.MULTILINE), name


def test_starting_the_command_line_loads_nothing_heavy() -> None:
    code = f"import sys, orchestrator.cli.main; print(*(m for m in {HEAVY} if m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


def test_help_runs_no_module_that_only_other_commands_need() -> None:
    """The modules of `late_modules.LATE` are known by then, but not executed; a package is, and holds a sentence."""
    code = (
        "import sys, types, orchestrator.cli.main as cli\n"
        "from orchestrator.late_modules import LATE\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "late = [name for name in sys.modules if name.startswith(LATE)]\n"
        "assert 'orchestrator.services.sweeps' in late\n"
        "print(*(name for name in late if type(sys.modules[name]) is types.ModuleType), file=sys.stderr)\n"
        f"print(*(m for m in {('filelock', 'psutil', 'numpy')} if m in sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(ran.stderr.split()) == {"orchestrator.cli.text.sweeps", "orchestrator.services.choices"}


def test_planning_without_a_store_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, orchestrator.cli.main as cli\n"
        "try: cli.main(['plan', '--grid', 'all-categories', '--profile', 'laptop', '--json'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*(m for m in ('torch', 'ray', 'mlflow', 'boto3') if m in sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env={"ORCH_HOME": str(tmp_path / "none"), "PATH": ""}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stderr.strip() == ""
    assert not (tmp_path / "none").exists()
