"""Data: preparation, packing, decontamination and mixtures, ours beside the peer's.

    python benchmarks/data.py [--quick] [--case NAME ...] --json OUT

Needs the public data beside the project (see docs/benchmarks.md); a case that cannot run here says
why and is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cases import decontamination, mixture, packing, preparation  # noqa: E402

CASES = {
    "preparation": preparation.run,
    "packing": packing.run,
    "decontamination": decontamination.run,
    "mixture": mixture.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, about a minute")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one")
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    args = parser.parse_args()
    results = []
    for name in args.case or CASES:
        sys.stderr.write(f"{name} ...\n")
        try:
            result = CASES[name](args.quick)
        except FileNotFoundError as error:
            sys.stderr.write(f"{name}: left out, {error} is not here\n")
            continue
        results.append(result)
        sys.stderr.write(
            f"{name}: {result['ours']:,.0f} {result['unit']} against {result['peer']:,.0f} of"
            f" {result['peer_name']}: {result['ratio']:.1f}x; peak {result['ours_peak_mb']:,.0f}"
            f" against {result['peer_peak_mb']:,.0f} MB\n"
        )
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
