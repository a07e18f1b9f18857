"""A recipe runs as a program from a wheel and from an editable install, in fresh environments."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import posttrain_hook

pytestmark = pytest.mark.slow

ROOT = Path(posttrain_hook.__file__).parent


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)


def pip(python: Path, *arguments: str | Path, cwd: Path) -> None:
    flags = ("--no-deps", "--no-build-isolation", "--ignore-installed", "--no-index")
    command = (sys.executable, "-m", "pip", "--python", python, "install", *flags)
    done = run(*command, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of an environment that borrows this one's packages, but not its hooks.

    Python obeys the `.pth` files of an environment's own site-packages only, so whatever answers
    for a recipe there was put there by the installation under test.
    """
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    site = Path(
        run(
            python, "-c", "import site; print(*site.getsitepackages())", cwd=tmp_path
        ).stdout.strip()
    )
    (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = run(python, "-c", "import sys; print(sys.path_hooks)", cwd=tmp_path)
    assert "find_recipe" not in done.stdout
    return python


def check_launch(python: Path, folder: Path, home: Path) -> None:
    """`python recipe.yaml --help` is the help of `run`, and the code comes from `home`."""
    (folder / "stack.yaml").write_text("name: stack\n")
    done = run(python, "stack.yaml", "--help", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "posttrain run" in done.stdout and "--from_stage" in done.stdout
    where = run(python, "-c", "import posttrain; print(posttrain.__file__)", cwd=folder)
    assert Path(where.stdout.strip()).is_relative_to(home)
    version = run(python.with_name("posttrain"), "--version", cwd=folder)
    assert version.stdout == "posttrain 0.1.0\n"


def test_a_wheel_install_runs_recipes(python: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "-w", wheels)
    done = run(sys.executable, "-m", "pip", "wheel", *flags, ROOT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.glob("posttrain-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    templates = {f"posttrain/templates/{path.name}" for path in ROOT.glob("posttrain/templates/*")}
    assert templates and templates <= set(names)
    assert {"posttrain.pth", "posttrain_hook.py", "posttrain/cli/__init__.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "recipes/"))]
    pip(python, wheel, cwd=tmp_path)
    check_launch(python, tmp_path, tmp_path / "env")


def test_an_editable_install_runs_recipes(python: Path, tmp_path: Path) -> None:
    pip(python, "-e", ROOT, cwd=tmp_path)
    check_launch(python, tmp_path, ROOT)
