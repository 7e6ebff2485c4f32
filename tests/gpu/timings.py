"""Timings of the same solves and the same network on the CPU and on the GPU: `python tests/gpu/timings.py 255`.

Each line is the median of five runs after one that warms up, set-up included, with the spread. Prints a table and
writes `build/gpu_timings.json`. `make gpu` runs it after the tests.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sciml.core import Linear
from sciml.discretise import Diffusion
from sciml.domains import Grid
from sciml.networks import FNO
from sciml.solvers import ConjugateGradient, Direct, Multigrid
from sciml.solving import solve

RUNS = 5


def seconds(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Median and spread (largest minus smallest) of several runs, the device idle before and after each."""
    taken = []
    for _ in range(RUNS + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        clock = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - clock)
    return statistics.median(taken[1:]), max(taken[1:]) - min(taken[1:])


def plate(n: int, device: str) -> Linear:
    """Constant coefficient, zero at all sides, a random source, to a relative accuracy of 1e-8."""
    source = torch.randn(1, 1, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Linear("plate", Diffusion(Grid((n, n))), source).to(device=device)


def work(n: int, device: str) -> dict[str, Callable[[], object]]:
    """What is timed."""
    problem = plate(n, device)
    network = FNO(dim=2, modes=12, width=32).to(device)
    x = torch.randn(16, 1, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)

    def train() -> None:
        network.zero_grad()
        network(x).square().mean().backward()

    return {
        f"direct transform, {n} x {n}": lambda: solve(problem, Direct()),
        f"multigrid-CG, {n} x {n}": lambda: solve(problem, ConjugateGradient(preconditioner=Multigrid())),
        "FNO forward and backward, 16 x 64 x 64": train,
    }


def main(n: int = 1023) -> dict[str, dict[str, tuple[float, float]]]:
    """Time everything on every device there is."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for device in devices:
        for name, run in work(n, device).items():
            table.setdefault(name, {})[device] = seconds(run, device)
    gpu = torch.cuda.get_device_name() if "cuda" in devices else "none"
    print(f"CPU {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads; GPU {gpu}")
    for name, row in table.items():
        print(
            f"{name:42}"
            + "  ".join(f"{device} {a * 1e3:9.1f} ms (spread {b * 1e3:.1f})" for device, (a, b) in row.items())
        )
    out = Path("build")
    out.mkdir(exist_ok=True)
    (out / "gpu_timings.json").write_text(json.dumps({"gpu": gpu, "n": n, "seconds": table}, indent=1))
    return table


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
