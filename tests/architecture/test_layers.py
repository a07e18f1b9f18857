"""The order of the house: imports point one way, and files and functions stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import posttrain

PACKAGE = Path(posttrain.__file__).parent
FLOORS = (
    {"errors"},
    {"parallel", "store"},
    {"formats"},
    {"recipe"},
    {"sources", "filters", "verifiers", "decontamination"},
    {"synthesis", "preferences"},
    {"mixture"},
    {"tokens", "packing", "attention", "partitions"},
    {"losses", "advantages", "models", "head", "scratch", "generation"},
    {"trainers"},
    {"evals"},
    {"pipeline"},
    {"cli"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
OUTSIDE = {"__init__", "__main__"}  # the public names and `python -m posttrain`: above the house


def modules(package: Path) -> Iterator[tuple[Path, str, ast.Module]]:
    """Every Python file of the package, the room it stands in, and its syntax tree."""
    for path in sorted(package.rglob("*.py")):
        room = Path(path.relative_to(package).parts[0]).stem
        yield path, room, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Full names of what is imported anywhere in a file, `from x import y` as x.y."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def import_faults(package: Path) -> list[str]:
    faults = []
    for path, room, tree in modules(package):
        if room in OUTSIDE:
            continue
        if room not in FLOOR:
            faults.append(f"{path}: the room {room} has no floor; give it one in FLOORS")
            continue
        for name, line in imports(tree):
            fault = import_fault(room, name)
            if fault:
                faults.append(f"{path}:{line}: {fault}")
    return faults


def import_fault(room: str, name: str) -> str | None:
    if name.startswith("."):
        return f"`{name}`: write the import in full, from posttrain.<room> import <name>"
    parts = name.split(".")
    if parts[0] == "torch" and FLOOR[room] < FLOOR["tokens"]:
        return f"{room} stands left of tokens and may not import torch"
    if parts[0] != "posttrain" or name == "posttrain.__version__":
        return None
    other = parts[1] if len(parts) > 1 else ""
    if other not in FLOOR:
        return f"`{name}` names no room: write from posttrain.<room> import <name>"
    if other != room and FLOOR[other] >= FLOOR[room]:
        return f"{room} may not import {other}"
    return None


def size_faults(package: Path) -> list[str]:
    faults = []
    for path, _, tree in modules(package):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 400:
            faults.append(f"{path}: {lines} lines; a file holds at most 400")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    faults.append(
                        f"{path}:{node.lineno}: {node.name} is {length} lines; at most 60"
                    )
    return faults


def utils_faults(package: Path) -> list[str]:
    found = [*package.rglob("*util*"), *package.rglob("*helpers*"), *package.rglob("*common*")]
    return [f"{path}: name it after what it makes" for path in found if path.suffix != ".pyc"]


def write(package: Path, **files: str) -> Path:
    for name, text in files.items():
        path = package / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def test_imports_point_one_way() -> None:
    assert "\n".join(import_faults(PACKAGE)) == ""


def test_files_and_functions_stay_small() -> None:
    assert "\n".join(size_faults(PACKAGE)) == ""


def test_there_is_no_utils() -> None:
    assert "\n".join(utils_faults(PACKAGE)) == ""


def test_a_wrong_import_is_found_with_file_and_line(tmp_path: Path) -> None:
    package = write(
        tmp_path,
        losses__in__dpo="import torch\nfrom posttrain.trainers.dpo import DPOTrainer\n",
        advantages__in__group="def f():\n    from posttrain.losses.base import reduce\n",
        verifiers__in__gsm8k="import torch.nn\n",
        filters__in__length="from .rules import Rule\n",
        cli="from posttrain import run, __version__\n",
        tokens="from posttrain.errors import DataError\nfrom posttrain.tokens import x\n",
        attic="",
    )
    found = {fault.removeprefix(f"{tmp_path}/") for fault in import_faults(package)}
    assert found == {
        "losses/dpo.py:2: losses may not import trainers",
        "advantages/group.py:2: advantages may not import losses",
        "verifiers/gsm8k.py:1: verifiers stands left of tokens and may not import torch",
        "filters/length.py:1: `.rules.Rule`: write the import in full, "
        "from posttrain.<room> import <name>",
        "cli.py:1: `posttrain.run` names no room: write from posttrain.<room> import <name>",
        f"{tmp_path}/attic.py: the room attic has no floor; give it one in FLOORS".removeprefix(
            f"{tmp_path}/"
        ),
    }


def test_a_long_file_and_a_long_function_are_found(tmp_path: Path) -> None:
    body = "    x = 1\n"
    package = write(tmp_path, tokens="def f():\n" + body * 60, packing="x = 1\n" * 401)
    assert [fault.removeprefix(f"{tmp_path}/") for fault in size_faults(package)] == [
        "packing.py: 401 lines; a file holds at most 400",
        "tokens.py:1: f is 61 lines; at most 60",
    ]


def test_a_utils_file_is_found(tmp_path: Path) -> None:
    package = write(tmp_path, losses__in__dpo_utils="")
    assert utils_faults(package) == [f"{tmp_path}/losses/dpo_utils.py: name it after what it makes"]
