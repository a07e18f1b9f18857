"""Runs a recipe again and again in a process that kills itself at a given moment.

`python killed.py JOBS.json`: {"recipe", "chains": [[{"run_dir", "moment"}, ...], ...]}. The jobs of
a chain follow each other; chains run side by side. A moment is `"count"` (nothing happens but that
calls are counted), `null` (nothing at all) or {"calls", "after"}: SIGKILL comes `after` so many
calls of any function, counted from when those named in `calls` have been called, in this order.
Results go to stdout as JSON, chain by chain, lists of {"status", "where", "calls"}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

Moment = dict[str, Any]


class Killer:
    """Counts calls, of C functions too, and sends SIGKILL when the moment has come."""

    def __init__(self, moment: Moment, note: Path) -> None:
        self.names, self.left = list(moment["calls"]), moment["after"]
        self.calls, self.note = 0, note

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "c_call"):
            return
        self.calls += 1
        if self.names:
            if event == "call" and frame.f_code.co_name == self.names[0]:
                del self.names[0]
        elif self.left:
            self.left -= 1
        else:
            sys.setprofile(None)
            names, at = [], frame
            while at is not None:
                names.append(at.f_code.co_name)
                at = at.f_back  # type: ignore[assignment]
            self.note.write_text(json.dumps(names[::-1]))
            os.kill(os.getpid(), signal.SIGKILL)


def run_once(recipe: str, run_dir: str, moment: Moment | str | None, note: Path) -> None:
    from posttrain.pipeline import run
    from posttrain.trainers import reference

    # of its own: else no run but the first would build anything
    os.environ["POSTTRAIN_CACHE"] = f"{run_dir}.cache"
    reference.CHUNK = 4  # the tables of references are written in several turns
    never: Moment = {"calls": [], "after": 1 << 60}
    killer = Killer(moment if isinstance(moment, dict) else never, note)
    if moment:
        sys.setprofile(killer)
    run(recipe, run_dir=run_dir)
    sys.setprofile(None)
    note.write_text(json.dumps(killer.calls))


def in_a_child(recipe: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a forked process; how it ended and where."""
    note = Path(f"{job['run_dir']}.note")
    note.parent.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if not pid:
        try:
            run_once(recipe, job["run_dir"], job["moment"], note)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    noted = json.loads(note.read_text()) if note.is_file() else None
    note.unlink(missing_ok=True)
    calls = noted if isinstance(noted, int) else 0
    return {"status": status, "where": noted if isinstance(noted, list) else None, "calls": calls}


def in_turn(recipe: str, chain: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [in_a_child(recipe, job) for job in chain]


def main() -> None:
    todo = json.loads(Path(sys.argv[1]).read_text())
    import posttrain.pipeline.run  # noqa: F401  the children need not import it again

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        results = list(pool.map(partial(in_turn, todo["recipe"]), todo["chains"]))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
