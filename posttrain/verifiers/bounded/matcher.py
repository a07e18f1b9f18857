"""The process that matches patterns and validates JSON, which catastrophic patterns may hold up.

Run as a script by `patterns.py`; it imports nothing of this package but its neighbour `schema.py`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import runpy
import signal
import sys

_MAX_MEMORY = 1 << 30


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    schema = runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.py"))
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        kind, cpu_seconds, *parts = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            if kind == "schema":
                answer = schema["faults"](*parts)
            else:
                pattern, flags, text = parts
                answer = getattr(re, kind)(pattern, text, flags) is not None
        except (RecursionError, MemoryError) as error:
            answer = f"{type(error).__name__}" if kind == "schema" else False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
