"""Every line of the doctor says ok, missing or bad, and what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from posttrain import cli
from posttrain.generation.vllm.launch import PYTHON
from posttrain.pipeline import doctor
from posttrain.pipeline.doctor import Finding, cache, disk, examine, optional, required, vllm


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ending:
        cli.main(list(arguments))
    return int(ending.value.code or 0)


def test_every_line_says_what_was_found_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: trial for name, trial in doctor.OPTIONAL.items() if name != "deepspeed"}
    monkeypatch.setattr(doctor, "OPTIONAL", few)  # it takes ten seconds to import
    monkeypatch.setenv(PYTHON, "nowhere")  # and so does vLLM
    findings = examine()
    assert {"python", "torch", "bitsandbytes", "vllm", "disk", "cache"} <= {
        finding.name for finding in findings
    }
    for finding in findings:
        assert finding.state in ("ok", "missing")
        assert finding.found
        assert finding.state == "ok" or finding.advice
    by_name = {finding.name: finding for finding in findings}
    assert by_name["python"].found in sys.version
    assert str(by_name["torch"]).startswith("ok      torch           2.")


def test_what_is_not_there_or_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert required("no-such-package").state == "bad"
    trials = {
        "no_such_package": ("", "speed", "get it"),
        "yaml": ("raise RuntimeError('no driver')", "speed", "mend it"),
    }
    monkeypatch.setattr(doctor, "OPTIONAL", trials)
    assert str(optional("no_such_package")).endswith("not installed (speed); get it")
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "6.0")
    broken = optional("yaml")
    assert broken == Finding(
        "yaml", "missing", "6.0 does not work (speed): RuntimeError: no driver", "mend it"
    )


def test_an_environment_for_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, "nowhere")
    assert str(vllm()).endswith("no environment with it (generation on a server); make vllm-env")
    monkeypatch.setenv(PYTHON, sys.executable)
    found = vllm()  # this one has none
    assert found.state == "missing" and "No module named 'vllm'" in found.found


def test_disk_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_GB", 0)
    assert disk(tmp_path).state == "ok"
    monkeypatch.setattr(doctor, "LEAST_GB", 1e9)
    assert "--run_dir" in disk(tmp_path).advice
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "new" / "folder"))
    assert cache() == Finding("cache", "ok", str(tmp_path / "new" / "folder"))


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OPTIONAL", {})
    monkeypatch.setenv(PYTHON, "nowhere")
    assert call("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0] == {"name": "python", "state": "ok", "found": sys.version.split()[0]} | {
        "advice": ""
    }
    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-package",))
    assert call("doctor") == 1
    assert "bad     no-such-package not installed; pip install" in capsys.readouterr().out
    assert call("doctor", "recipe.yaml") == 2
    assert "--batch-invariance RECIPE" in capsys.readouterr().err
    assert call("doctor", "--batch-invariance") == 2
