"""Elliptic solves beside PyAMG, in one process, in turn: `python -m tests.benchmark.multigrid --out multigrid.md`.

Ours: conjugate gradients in float64 with a float32 multigrid cycle, and, where the coefficient is constant, the direct
solution by sine transforms. Peer: PyAMG's Ruge-Stuben hierarchy with its conjugate gradients (Bell, Olson, Schroder,
J. Open Source Softw. 7, 2022, doi:10.21105/joss.04142). All solve to a relative residual of 1e-8 for a white-noise
right-hand side; time is set-up plus solution, the peer's matrix and the right-hand sides made beforehand. Median of
five after a warm-up, methods in turn, each waiting for an idle machine. The ratio is the peer's median over ours, its
spread that of the repetitions paired in order. "Processor" is the time that all threads together computed or waited.

Floor: the bytes that the method has to move, over the bandwidth of a copy of arrays that no cache holds. Per step and
unknown 88 for the vectors of conjugate gradients in float64 and, for the cycle in float32 with s sweeps in d
dimensions, (24 s + 20) 2^d / (2^d - 1), plus the conductances where they vary. Arrays of these sizes fit partly into a
large cache, so a floor can be passed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the peer's coarsest grid: more threads only wait for each other

import torch
from torch import Tensor

from sciml.core import Linear
from sciml.core.solver import Context
from sciml.discretise import Diffusion
from sciml.domains import Grid
from sciml.solvers.conjugate_gradient import ConjugateGradient
from sciml.solvers.multigrid import Multigrid
from sciml.solvers.transform import DirectTransform
from tests.benchmark._side_by_side import wait_for_idle

TARGET = 1e-8


@dataclass(frozen=True)
class Case:
    """One system: unknowns per axis, members, and whether the coefficient varies by a factor of 1e4."""

    name: str
    shape: tuple[int, ...]
    batch: int = 1
    contrast: float = 1.0


CASES = (
    Case("2-D, 1023 x 1023", (1023, 1023)),
    Case("2-D, 1023 x 1023, contrast 1e4", (1023, 1023), contrast=1e4),
    Case("3-D, 127 x 127 x 127", (127, 127, 127)),
    Case("64 members, 127 x 127", (127, 127), batch=64),
)


def coefficient(case: Case) -> Tensor | float:
    """Log-normal with correlation length 0.03, rescaled so that the largest is `contrast` times the smallest."""
    if case.contrast == 1:
        return 1.0
    z = torch.randn(case.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    squares = torch.zeros(case.shape, dtype=torch.float64)
    for k, n in enumerate(case.shape):
        line = (torch.fft.fftfreq(n, 1 / n).double() * 2 * math.pi * 0.03) ** 2
        squares = squares + line.reshape([-1 if j == k else 1 for j in range(len(case.shape))])
    z = torch.fft.ifftn(torch.fft.fftn(z) * torch.exp(-squares / 4)).real
    return torch.exp((z - z.min()) / (z.max() - z.min()) * math.log(case.contrast))


def residual(problem: Linear, value: Tensor) -> float:
    """The largest relative residual of the members."""
    rhs = problem.rhs
    r = (rhs - problem.operator(value)).flatten(1)
    return float((r.norm(dim=1) / rhs.flatten(1).norm(dim=1)).max())


def ours(case: Case, k: Tensor | float, source: Tensor) -> tuple[Callable[[], Tensor], int]:
    """The solve with as many steps as the target takes, and that number."""

    def run(steps: int) -> Tensor:
        grid = Grid(case.shape, (1.0,) * len(case.shape))
        problem = Linear("poisson", Diffusion(grid, k), source).with_target(discrete=1e-300)
        with torch.no_grad():
            solver = ConjugateGradient(preconditioner=Multigrid(), max_steps=steps)
            return solver.run(problem, None, Context()).value

    problem = Linear("poisson", Diffusion(Grid(case.shape, (1.0,) * len(case.shape)), k), source)
    steps = next(s for s in range(1, 60) if residual(problem, run(s)) <= TARGET)
    return lambda: run(steps), steps


def transform(case: Case, source: Tensor) -> Callable[[], Tensor]:
    """The direct solution."""

    def run() -> Tensor:
        problem = Linear("poisson", Diffusion(Grid(case.shape, (1.0,) * len(case.shape)), 1.0), source)
        with torch.no_grad():
            value: Tensor = DirectTransform().run(problem, None, Context()).value
        return value

    return run


def peer(case: Case, problem: Linear) -> Callable[[], Tensor]:
    """PyAMG member by member, one hierarchy for all of them where the coefficient is constant."""
    import numpy as np
    import pyamg

    matrix = problem.operator.matrix()
    sides = problem.rhs.flatten(1).numpy()

    def run() -> Tensor:
        hierarchy = pyamg.ruge_stuben_solver(matrix)
        answers = [hierarchy.solve(b, tol=TARGET, accel="cg", maxiter=200) for b in sides]
        return torch.from_numpy(np.stack(answers)).reshape(-1, 1, *case.shape)

    return run


def bandwidth() -> float:
    """Bytes per second, read and written, of a copy of 256 MB."""
    a = torch.ones(2**25, dtype=torch.float64)
    b = torch.zeros_like(a)
    best = math.inf
    for _ in range(7):
        begin = time.perf_counter()
        b.copy_(a)
        best = min(best, time.perf_counter() - begin)
    return 2 * a.numel() * 8 / best


def floor(case: Case, steps: int, speed: float) -> float:
    """Seconds that the bytes of `steps` steps take; see above."""
    dim, varying = len(case.shape), case.contrast != 1
    sweeps = 3 if varying or dim == 3 else 2
    share = 2**dim / (2**dim - 1)
    cycle = (24 * sweeps + 20 + (4 * dim * (2 * sweeps + 1) if varying else 0)) * share
    vectors = 88 + (8 * dim if varying else 0)
    return case.batch * math.prod(case.shape) * steps * (cycle + vectors) / speed


def measure(methods: dict[str, Callable[[], Tensor]], repetitions: int, patience: float) -> dict[str, dict[str, Any]]:
    """Seconds of every repetition, the methods in turn, and the load of others before each."""
    record: dict[str, dict[str, Any]] = {name: {"seconds": [], "processor": [], "others": []} for name in methods}
    for repetition in range(repetitions + 1):
        for name, method in methods.items():
            share = wait_for_idle(patience)
            begin, used = time.perf_counter(), time.process_time()
            method()
            if repetition:
                record[name]["seconds"].append(time.perf_counter() - begin)
                record[name]["processor"].append(time.process_time() - used)
                record[name]["others"].append(round(share, 2))
    return record


def run(case: Case, repetitions: int, patience: float, speed: float) -> list[dict[str, Any]]:
    """All methods for one case, as rows of the table."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn((case.batch, 1, *case.shape), dtype=torch.float64, generator=generator)
    k = coefficient(case)
    problem = Linear("poisson", Diffusion(Grid(case.shape, (1.0,) * len(case.shape)), k), source)
    multigrid, steps = ours(case, k, source)
    methods = {"PyAMG": peer(case, problem), "multigrid + CG": multigrid}
    if case.contrast == 1:
        methods["direct transform"] = transform(case, source)
    reached = {name: residual(problem, method()) for name, method in methods.items()}
    record = measure(methods, repetitions, patience)
    rows = []
    for name in methods:
        seconds, others = record[name]["seconds"], record["PyAMG"]["seconds"]
        paired = [a / b for a, b in zip(others, seconds, strict=True)]
        median = statistics.median(seconds)
        lowest = floor(case, steps, speed) if name == "multigrid + CG" else None
        if name == "direct transform":  # one read and one write of the array per axis and direction
            lowest = 32 * len(case.shape) * source.numel() / speed
        rows.append(
            {
                "case": case.name,
                "method": name,
                "steps": steps if name == "multigrid + CG" else None,
                "residual": reached[name],
                "seconds": median,
                "processor": statistics.median(record[name]["processor"]),
                "ratio": statistics.median(others) / median,
                "spread": (min(paired), max(paired)),
                "floor": lowest,
                "repetitions": record[name],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| case | method | steps | relative residual | seconds | processor | times PyAMG (spread) | floor (share reached) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = f"{row['ratio']:.1f} ({row['spread'][0]:.1f} to {row['spread'][1]:.1f})"
        lowest = "" if row["floor"] is None else f"{row['floor']:.4f} ({100 * row['floor'] / row['seconds']:.0f} %)"
        cells = [row["case"], row["method"], str(row["steps"] or ""), f"{row['residual']:.0e}"]
        cells += [f"{row['seconds']:.3f}", f"{row['processor']:.3f}", ratio, lowest]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print the table, write it and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a Markdown file; the numbers go to the same name with .json")
    parser.add_argument("--cases", type=int, nargs="*", default=list(range(len(CASES))), help="which cases, from 0")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for an idle machine, each time")
    parser.add_argument("--threads", type=int, help="threads of torch; PyAMG uses one")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    speed = bandwidth()
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "copy": f"{speed / 1e9:.0f} GB/s read and written",
    }
    rows: list[dict[str, Any]] = []
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for index in options.cases:
        rows += run(CASES[index], options.repetitions, options.patience, speed)
    print(table(rows))
    if options.out:
        options.out.write_text(", ".join(f"{k} {v}" for k, v in machine.items()) + "\n\n" + table(rows) + "\n")
        options.out.with_suffix(".json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    return rows


if __name__ == "__main__":
    main()
