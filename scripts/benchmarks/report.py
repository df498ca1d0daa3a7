"""Medians, quartiles, and whether a bound is met: within a tenth of it counts as that."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from scripts.benchmarks.rows import Row


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def verdict(value: float, bound: float) -> str:
    return "met" if value <= bound * 1.1 else "NOT MET"


def report(row: Row, values: dict[str, list[float]]) -> None:
    ours = values.get("dockpy")
    print(f"{row.title}")
    for name, found in values.items():
        low, middle, high = quartiles(found)
        print(f"  {name:8} {middle:9.1f} {row.unit} ({low:.1f} to {high:.1f}, n={len(found)})")
    for peer in (*row.bounds, *row.also):
        if not ours or peer not in values:
            continue
        low, middle, high = quartiles([a / b for a, b in zip(ours, values[peer])])
        line = f"  {middle:.3f} × {peer} ({low:.3f} to {high:.3f})"
        if peer in row.bounds:
            bound = row.bounds[peer]
            met = middle >= bound / 1.1 if row.rate else middle <= bound * 1.1
            line += f"; at {'least' if row.rate else 'most'} {bound}: {'met' if met else 'NOT MET'}"
        print(line)
    sys.stdout.flush()
