"""The path hook answers for the recipe that is being run, and for nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import posttrain_hook

ACCELERATE = "accelerate.commands.launch"

# Stands where `posttrain` would, so that what the hook runs can be seen without a training run.
WITNESS = """\
import json, multiprocessing, os, sys


def child(queue):
    queue.put([__name__, sys.modules["__main__"].__name__])


def main(argv):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    spawned = queue.get(timeout=60)
    process.join()
    seen = {"argv": argv, "spawned": spawned, "status": process.exitcode}
    with open(os.environ["SEEN"] + os.environ.get("RANK", ""), "w") as file:
        json.dump(seen, file)
"""


def python(*args: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def witness(tmp_path: Path) -> dict[str, str]:
    package = tmp_path / "witness" / "posttrain"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(WITNESS)
    return {"PYTHONPATH": str(package.parent), "SEEN": str(tmp_path / "seen")}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "stack.yaml"
    path.write_text("name: stack\n")
    return path


@pytest.mark.parametrize("spelling", ["stack.yaml", "./stack.yaml", "witness/../stack.yaml"])
def test_a_recipe_is_the_program(
    spelling: str, recipe: Path, witness: dict[str, str], tmp_path: Path
) -> None:
    done = python(spelling, "--smoke", "seed=7", cwd=tmp_path, **witness)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "seen").read_text()) == {
        "argv": ["run", spelling, "--smoke", "seed=7"],
        "spawned": ["posttrain.cli", "__main__"],
        "status": 0,
    }


def test_an_absolute_path_and_yml_are_recipes_too(witness: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "other.yml"
    path.write_text("name: other\n")
    done = python("-u", path, cwd=tmp_path, **witness)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "seen").read_text())["argv"] == ["run", str(path)]


@pytest.mark.slow
def test_torchrun_hands_the_recipe_to_every_process(
    recipe: Path, witness: dict[str, str], tmp_path: Path
) -> None:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = python(*command, "stack.yaml", "--smoke", cwd=tmp_path, OMP_NUM_THREADS="1", **witness)
    assert done.returncode == 0, done.stderr
    for rank in "01":
        seen = json.loads((tmp_path / f"seen{rank}").read_text())
        assert seen["argv"] == ["run", "stack.yaml", "--smoke"]


@pytest.mark.slow
def test_accelerate_launches_the_recipe(
    recipe: Path, witness: dict[str, str], tmp_path: Path
) -> None:
    done = python("-m", ACCELERATE, "--cpu", "stack.yaml", "--smoke", cwd=tmp_path, **witness)
    assert done.returncode == 0, done.stderr
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["argv"] == ["run", "stack.yaml", "--smoke"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["MULTI_GPU", "DEEPSPEED"])
def test_accelerate_launches_the_recipe_on_two_processes(
    kind: str, recipe: Path, witness: dict[str, str], tmp_path: Path
) -> None:
    settings = {"distributed_type": kind, "num_processes": 2, "num_machines": 1, "use_cpu": False}
    if kind == "DEEPSPEED":
        settings["deepspeed_config"] = {"zero_stage": 2, "deepspeed_multinode_launcher": "standard"}
    (tmp_path / "hardware.json").write_text(json.dumps(settings))
    command = ["-m", ACCELERATE, "--config_file", "hardware.json", "stack.yaml", "--smoke"]
    done = python(*command, cwd=tmp_path, OMP_NUM_THREADS="1", **witness)
    assert done.returncode == 0, done.stderr
    for rank in "01":
        seen = json.loads((tmp_path / f"seen{rank}").read_text())
        assert seen["argv"] == ["run", "stack.yaml", "--smoke"]


@pytest.mark.parametrize("text", ["- just\n- a list\n", "a: [1\n", "", "replicas: 3\n"])
def test_a_yaml_that_is_no_recipe_is_one_message_and_status_2(text: str, tmp_path: Path) -> None:
    (tmp_path / "deployment.yaml").write_text(text)
    done = python("deployment.yaml", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "deployment.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deployment.yaml"]


def test_a_missing_recipe_is_python_s_own_error(tmp_path: Path) -> None:
    done = python("absent.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "can't open file" in done.stderr


def test_a_script_is_untouched_though_a_yaml_is_its_argument(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys; print(__name__, sys.argv)")
    done = python("script.py", "stack.yaml", cwd=tmp_path)
    assert done.stdout == "__main__ ['script.py', 'stack.yaml']\n"


def test_a_folder_is_untouched_though_it_is_named_yaml(tmp_path: Path) -> None:
    folder = tmp_path / "program.yaml"
    folder.mkdir()
    (folder / "__main__.py").write_text("print('the folder ran')")
    assert python("program.yaml", cwd=tmp_path).stdout == "the folder ran\n"


def test_a_zip_application_is_untouched(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", "print('the archive ran')")
    assert python("app.pyz", cwd=tmp_path).stdout == "the archive ran\n"


def test_a_module_and_a_command_are_untouched(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("print('the module ran')")
    assert python("-m", "module", "stack.yaml", cwd=tmp_path).stdout == "the module ran\n"
    program = "import sys; sys.path.insert(0, 'stack.yaml'); import module"
    assert python("-c", program, "stack.yaml", cwd=tmp_path).stdout == "the module ran\n"


def test_only_the_running_recipe_is_answered_for(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = recipe.with_name("other.yaml")
    other.write_text("name: other\n")
    monkeypatch.setattr(sys, "argv", [str(recipe)])
    finder = posttrain_hook.find_recipe(str(recipe))
    assert finder.find_spec("__main__").origin == str(recipe)
    assert finder.find_spec("json") is None
    for path in (other, recipe.parent, recipe.with_suffix(".py")):
        with pytest.raises(ImportError):
            posttrain_hook.find_recipe(str(path))
    monkeypatch.delattr(sys, "argv")
    with pytest.raises(ImportError):
        posttrain_hook.find_recipe(str(recipe))


def test_the_hook_comes_last_and_once() -> None:
    program = "import sys; print([hook.__name__ for hook in sys.path_hooks])"
    hooks = python("-c", program, cwd=Path.cwd()).stdout
    assert hooks.count("find_recipe") == 1, f"is posttrain installed? {hooks}"
    assert hooks.rstrip().endswith("'find_recipe']")


def test_the_start_of_python_pays_for_one_small_module() -> None:
    program = (
        "import site, sys; before = set(sys.modules); import posttrain_hook;"
        "print(set(sys.modules) - before)"
    )
    done = python("-S", "-c", program, cwd=Path(posttrain_hook.__file__).parent)
    assert done.stdout == "{'posttrain_hook'}\n"
