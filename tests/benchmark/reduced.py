"""Reduced models of Burgers' equation beside the full solver: `python -m tests.benchmark.reduced --out tests/benchmark/reduced.md`.

The catalogue's problem with 1024 points and its default start (seed 0); 100 viscosities in [0.01, 0.1], evenly drawn in the
logarithm, none of them among the 24 of the snapshots (which crowd at the small ones, whose fronts are sharp), are asked as one batch at 21 times in [0, 1]. Errors are relative to the
certified solution of the full model: over space and time per member, and the worst at any one time. The effectivity is the bound
over the error, at every time and member after the start. Seconds are of the runs alone, without certificates, the smallest of the repetitions, one thread; the
full solver is ETDRK4 with steps of its own choice for the same batch. What others used of the machine is told beside.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import sciml
from sciml.core.solver import Context
from sciml.learned import ReducedModel
from sciml.solvers import ExponentialRungeKutta
from tests.benchmark._side_by_side import busy, wait_for_idle

TAUGHT = 24
ASKED = 100
TIMES = [i / 20 for i in range(21)]
# Snapshots crowd at the start, where the short waves of the start fade.
SNAPSHOTS = sorted({0.0, *(0.02 * 2.0**-k for k in range(1, 11)), *(i / 50 for i in range(51))})


def seconds(function: Callable[[], Any], repetitions: int) -> float:
    """The smallest of several; infinite for none."""
    best = math.inf
    for _ in range(repetitions):
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
    return best


def main(n: int, modes: list[int], repetitions: int, patience: float) -> dict[str, Any]:
    """All numbers."""
    torch.set_num_threads(1)
    nu = 10 ** (torch.linspace(0, 1, TAUGHT, dtype=torch.float64) ** 2 - 2)
    generator = torch.Generator().manual_seed(11)
    unseen = 10 ** (torch.rand(ASKED, dtype=torch.float64, generator=generator) - 2)
    share = wait_for_idle(patience)
    begin = time.perf_counter()
    taught = sciml.solve(sciml.problem("burgers", n=n, viscosity=nu, times=SNAPSHOTS, seed=0))
    snapshots = time.perf_counter() - begin
    begin = time.perf_counter()
    reduction = ReducedModel(taught).reduction
    reducing = time.perf_counter() - begin
    problem = sciml.problem("burgers", n=n, viscosity=unseen, times=TIMES, seed=0)
    reference = sciml.solve(problem)  # by ETDRK4; its seconds are those of the run, without the certificate
    again = seconds(lambda: ExponentialRungeKutta().run(problem, None, Context()), repetitions - 1)
    space, exact = problem.space, reference.value
    with torch.no_grad():
        full = min(reference.stats["seconds"], again)
        rows = []
        for count in modes:
            plain, bounded = (ReducedModel(reduction, count, reference=r) for r in (0, None))
            answer = bounded.run(problem, None, Context())
            error = (space.norm(answer.value - exact) / space.norm(exact))[:, 1:]
            whole = (answer.value - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
            effectivity = answer.history.T[:, 1:] / error
            rows.append(
                {
                    "modes": count,
                    "error_median": float(whole.median()),
                    "error_mean": float(whole.mean()),
                    "error_worst": float(whole.max()),
                    "error_worst_time": float(error.max()),
                    "effectivity_least": float(effectivity.min()),
                    "effectivity_median": float(effectivity.median()),
                    "effectivity_most": float(effectivity.max()),
                    "seconds": seconds(lambda plain=plain: plain.run(problem, None, Context()), repetitions),
                    "seconds_bounded": seconds(
                        lambda bounded=bounded: bounded.run(problem, None, Context()), repetitions
                    ),
                }
            )
    return {
        "n": n,
        "rows": rows,
        "full_seconds": full,
        "snapshots_seconds": snapshots,
        "reduction_seconds": reducing,
        "certified": reference.ok and taught.ok,
        "busy_before": share,
        "busy_after": busy(),
        "machine": f"{platform.machine()}, torch {torch.__version__}, one thread",
        "date": time.strftime("%Y-%m-%d"),
    }


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"Burgers, {found['n']} points, {ASKED} unseen viscosities in [0.01, 0.1] as one batch ({found['date']}, {found['machine']}; others used "
        f"{100 * found['busy_before']:.0f} % of the machine before and {100 * found['busy_after']:.0f} % after). Full solver: {found['full_seconds']:.1f} s. "
        f"Beforehand: {found['snapshots_seconds']:.0f} s for {TAUGHT} certified solutions, {found['reduction_seconds']:.1f} s for modes and points.",
        "",
        "| modes | error, median | mean | worst | worst at one time | effectivity of the bound, least / median / most | seconds | speed-up | seconds with bound | speed-up with bound |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['modes']} | {row['error_median']:.1e} | {row['error_mean']:.1e} | {row['error_worst']:.1e} | {row['error_worst_time']:.1e} | {row['effectivity_least']:.2f} / "
            f"{row['effectivity_median']:.2f} / {row['effectivity_most']:.1f} | {row['seconds']:.2f} | {found['full_seconds'] / row['seconds']:.1f} | "
            f"{row['seconds_bounded']:.2f} | {found['full_seconds'] / row['seconds_bounded']:.1f} |"
        )
    return "\n".join([*lines, "", "`python -m tests.benchmark.reduced --out tests/benchmark/reduced.md`", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--n", type=int, default=1024)
    parser.add_argument("--modes", type=int, nargs="+", default=[10, 20, 30])
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for an idle machine")
    given = parser.parse_args()
    result = main(given.n, given.modes, given.repetitions, given.patience)
    text = table(result)
    print(text)
    if given.out is not None:
        given.out.write_text(text)
        given.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
