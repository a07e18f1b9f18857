"""The process that verifies, run as `python -P worker.py FOLDER`: one JSON line in, one out.

FOLDER holds the package; torch is never imported.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer until standard input ends. What verifiers print must not pass for an answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[:0] = [path for path in sys.argv[1:] if path not in sys.path]
    from posttrain.verifiers.workers.composition import verifier_of

    known: dict[str, Any] = {}
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        spec, completion, ground_truth, row = json.loads(line)
        answer: dict[str, Any]
        try:
            key = json.dumps(spec, sort_keys=True)
            if key not in known:
                known[key] = verifier_of(spec)
            verdict = known[key](completion, ground_truth, **row)
            answer = vars(verdict)
        except MemoryError:
            os._exit(1)  # what is left of the heap is not to be trusted
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "kind": type(error).__name__}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
