"""Times dockpy beside podman and docker: interleaved pairs, medians and quartiles of the ratios, bounds.

Machines drift, so single figures mean little: in every pair one command of each engine is run right after the other,
and what is judged is the median of the ratios. Within a tenth of its bound a row counts as met.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from scripts.benchmarks.alone import first_command, sizes
from scripts.benchmarks.daemon import adoption, events, idle, stats
from scripts.benchmarks.engines import TOP, Engine, Failed, engines_in
from scripts.benchmarks.extractor import extractor
from scripts.benchmarks.report import report
from scripts.benchmarks.rows import ROWS, Row

ALONE = {
    "first": first_command,
    "extract": extractor,
    "memory": sizes,
    "stats": stats,
    "events": events,
    "idle": idle,
    "adopt": adoption,
}


def measure(row: Row, engines: dict[str, Engine], pairs: int) -> dict[str, list[float]]:
    """Values by engine; an engine that fails drops out of the row, with the reason on stderr."""
    values: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(pairs + 1):
        for name in list(values):
            try:
                value = row.measure(engines[name])
            except (Failed, subprocess.TimeoutExpired) as error:
                print(f"  {row.name}: {error}", file=sys.stderr, flush=True)
                del values[name]
                continue
            if number:  # the first round warms up
                values[name].append(value)
    return values


def main() -> None:
    names = [row.name for row in ROWS] + list(ALONE)
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="rows: " + " ".join(names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/dockpy-bench"))
    parser.add_argument("--rows", default=",".join(names), help="comma-separated; default: all")
    parser.add_argument("--pairs", type=int, help="instead of each row's own number")
    parser.add_argument("--json", type=Path, help="raw values go here")
    parser.add_argument(
        "--no-peers", action="store_true", help="dockpy alone, on images that bench-peers has made"
    )
    options = parser.parse_args()
    if not options.no_peers:
        subprocess.run([TOP / "scripts/bench-peers", options.work], check=True)
    engines = engines_in(options.work)
    if options.no_peers:
        engines = {"dockpy": engines["dockpy"]}
    raw: dict[str, dict[str, list[float]]] = {}
    try:
        for row in ROWS:
            if row.name in options.rows.split(","):
                wanted = ["dockpy", *row.bounds, *row.also]
                some = {name: engines[name] for name in wanted if name in engines}
                raw[row.name] = measure(row, some, options.pairs or row.pairs)
                report(row, {name: found for name, found in raw[row.name].items() if found})
        for name, alone in ALONE.items():
            if name in options.rows.split(","):
                try:
                    alone(engines["dockpy"])
                except Failed as error:
                    print(f"  {name}: {error}", file=sys.stderr, flush=True)
    finally:
        for engine in engines.values():
            if engine.name != "runc":
                engine.drop(*engine.made)
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
