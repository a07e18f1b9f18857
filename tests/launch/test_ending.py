"""A launch that is ended leaves no process behind, whatever session it has moved to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# as torchrun does: a worker in a session of its own, which its parent may die without
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], **{options})
print(child.pid, flush=True)
{rest}
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
@pytest.mark.parametrize("rest", ["time.sleep(300)", ""], ids=["killed", "gone"])
def test_no_process_is_left(rest: str, begin: Callable[..., Any], tmp_path: Path) -> None:
    script = PARENT.format(options={"start_new_session": True}, rest=rest)
    launched = begin([sys.executable, "-c", script], tmp_path)
    end = time.monotonic() + 20
    while not launched.printed().endswith("\n"):
        assert time.monotonic() < end
        time.sleep(0.01)
    child = int(launched.printed())
    while child not in launched.left():  # it may not have started its own program yet
        assert time.monotonic() < end
        time.sleep(0.01)
    launched.end()
    assert launched.left() == []
    assert is_dead(child)


def is_dead(pid: int) -> bool:
    """Whether at most its exit status is left of a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True
