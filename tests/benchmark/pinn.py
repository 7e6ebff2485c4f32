"""Physics-informed networks: error and processor time beside a classical solver on the same problem.

    python -m tests.benchmark.pinn --only burgers-odd --seeds 3 --out tests/benchmark/pinn.md

Errors are relative L2 norms over the problem's grid and all its times, medians over seeds (points and first weights), against the
exact solution (Poisson) or a solution by ETDRK4 on a finer grid whose own error is orders below. For the inverse problem
the number is the relative error of the viscosity, the control is Gauss-Newton on ETDRK4 solutions with the same data, and the Cramer-Rao bound says
what the noise leaves to be found. With --out, rows of an earlier run of other cases are kept, each with its own date and command. Times are those of the processor (`time.process_time`), one thread, so that other
work on the machine does not count. The control is the recommended solver on the same grid.

- poisson: -laplacian u = f on the unit square, u = prod sin(pi x) exp(x / 2), zero on the sides (held).
- burgers: viscosity 0.01/pi on [0, 2), periodic, u = sin(pi x) at the start (held), until t = 1; twice: with the solution's oddness about
  x = 1 declared, which is extra knowledge, and without.
- allen-cahn: u_t = 1e-4 u_xx - 5 u^3 + 5 u on [-1, 1], periodic, u = x^2 cos(pi x) at the start, until t = 1, stated by the catalogue with time in units of
  the reaction (five in all); evenness declared, ten windows of time (small early errors grow like exp(t)), the start an input of the network; 1024 points,
  since the start has a kink at the ends that the steps of 512 do not resolve to 1e-5.
- viscosity: burgers with viscosity 0.01/pi sought from 200 sensors at random places, each read at 10 times, noise of 1 % of the largest value; first
  guess 0.05. (Twenty sensors leave 1 % to 14 % to chance, since nearly all that the data know of the viscosity is seen within 0.02 of the shock.)
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sciml
from sciml.core import GaussianNoise, Inverse
from sciml.domains import Periodic
from sciml.forward import ParameterToState
from sciml.learned.pinn import PINN, Even, Exact, Odd, ResidualAdaptive, Sobol, Staged
from sciml.networks import MLP
from sciml.solvers import ExponentialRungeKutta

VISCOSITY = 0.01 / math.pi
TIMES = tuple(i / 20 for i in range(1, 21))
SENSOR_TIMES = tuple(i / 10 for i in range(1, 11))
FEW = ResidualAdaptive(600)


@dataclass(frozen=True)
class Case:
    """A problem, the network's settings for a seed, what is known of the answer, the goal."""

    name: str
    goal: float
    problem: Callable[[int], Any]
    solver: Callable[[int, int | None], PINN]
    error: Callable[[Any, Tensor], float]
    control: Callable[[Any], Any]
    limit: Callable[[Any], float] | None = None


def relative(value: Tensor, known: Tensor) -> float:
    """The relative L2 norm of the difference."""
    return float(torch.linalg.vector_norm(value - known) / torch.linalg.vector_norm(known))


def poisson(seed: int) -> Any:
    return sciml.problem("poisson", n=63)


def burgers(n: int = 512, viscosity: float = VISCOSITY, times: tuple[float, ...] = TIMES) -> Any:
    x = torch.arange(n, dtype=torch.float64) * 2 / n
    start = torch.sin(math.pi * x)
    return sciml.problem("burgers", n=n, viscosity=viscosity, length=2.0, times=times, start=start)


def allen_cahn(n: int = 1024) -> Any:
    x = torch.arange(n, dtype=torch.float64) * 2 / n - 1
    start = (x.square() * torch.cos(math.pi * x)).reshape(1, 1, n)
    times = tuple(5 * t for t in SENSOR_TIMES)
    settings = {"dim": 1, "n": n, "width": math.sqrt(2e-5), "extent": 2.0, "sides": Periodic()}
    return sciml.problem("allen_cahn", **settings, times=times, start=start)


def seen(viscosity: float, places: Tensor, n: int = 512) -> Tensor:
    """What sensors at ``places`` (m,) see at the sensor times, ``(1, times, 1, m)``: the solution on ``n`` points, summed as waves (no interpolation error)."""
    state = sciml.solve(burgers(n, viscosity, SENSOR_TIMES)).value[0, :, 0]
    waves = torch.fft.rfft(state) / n
    waves[:, 1:-1] *= 2
    number = torch.arange(waves.shape[1], dtype=torch.float64)
    at = torch.exp(1j * math.pi * number.unsqueeze(1) * places)
    return (waves @ at).real.reshape(1, len(SENSOR_TIMES), 1, len(places))


def sensed(seed: int, count: int = 200) -> Any:
    """The inverse problem; noise and places of the sensors belong to the seed, the first guess is 0.05.

    The data are point values of a finer solution; the forward model, which only the certificate uses, interpolates linearly on 2048 points.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 1, dtype=torch.float64, generator=generator) * 2
    clean = seen(VISCOSITY, places[:, 0], 1024)
    settings: dict[str, Any] = {"solver": ExponentialRungeKutta(), "observe": places}
    forward = ParameterToState(burgers(2048, 0.05, SENSOR_TIMES), "viscosity", **settings)
    noise = 0.01 * float(clean.abs().max())
    data = clean + noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return Inverse("viscosity from sensors", forward, data, GaussianNoise(noise))


def noise_limit(problem: Any) -> float:
    """Cramer and Rao's bound: no unbiased estimate has a smaller standard deviation (relative, from a difference of two solutions at the truth)."""
    places = problem.forward.observe.points[:, 0]
    above, below = (seen(VISCOSITY * math.exp(s), places) for s in (0.01, -0.01))
    noise = 0.01 * float(above.abs().max())
    return noise / float(torch.linalg.vector_norm((above - below) / 0.02))


def newton(problem: Any) -> Tensor:
    """Gauss-Newton in the logarithm of the viscosity, on the ETDRK4 solution by differences, from the same first guess."""
    places, s = problem.forward.observe.points[:, 0], math.log(0.05)
    for _ in range(12):
        now = seen(math.exp(s), places)
        slope = (seen(math.exp(s + 1e-3), places) - now) / 1e-3
        step = float((slope * (problem.data - now)).sum() / slope.square().sum())
        s += max(-1.0, min(1.0, step))
        if abs(step) < 1e-4:
            break
    return torch.tensor(math.exp(s), dtype=torch.float64)


_KNOWN: dict[str, Tensor] = {}


def finer(name: str, pose: Callable[[int], Any], n: int) -> Callable[[Any, Tensor], float]:
    """The error against the recommended solver on a grid of ``n`` points, at the points of the coarse one."""

    def error(problem: Any, value: Tensor) -> float:
        if name not in _KNOWN:
            _KNOWN[name] = sciml.solve(pose(n).with_target(steps=1e-9)).value
        return relative(value, _KNOWN[name][..., :: n // value.shape[-1]])

    return error


def viscosity_error(problem: Any, value: Tensor) -> float:
    """Relative."""
    return abs(float(value.reshape(-1)[0]) / VISCOSITY - 1)


def recommended(problem: Any) -> Any:
    """The catalogue's own solver."""
    return sciml.solve(problem)


def cases() -> list[Case]:
    """What is measured."""
    odd, even = Exact(symmetries=(Odd(0, 1.0),)), Exact(symmetries=(Even(0, 1.0),), harmonics=6, fed=True)
    from_burgers, from_allen_cahn = finer("burgers", burgers, 4096), finer("allen-cahn", allen_cahn, 4096)
    return [
        Case(
            "poisson", 1e-7, poisson,
            lambda seed, steps: PINN(MLP(2, width=24, layers=2, seed=seed), sampling=Sobol(1500), max_steps=steps or 400, seed=seed),
            lambda problem, value: relative(value, problem.exact), recommended,
        ),
        Case(
            "burgers-odd", 1e-5, lambda seed: burgers(),
            lambda seed, steps: PINN(form=odd, sampling=Staged(FEW, ResidualAdaptive(2000)), max_steps=steps or 520, seed=seed),
            from_burgers, recommended,
        ),
        Case(
            "burgers", 2e-4, lambda seed: burgers(),
            lambda seed, steps: PINN(sampling=Staged(FEW, ResidualAdaptive(2500)), max_steps=steps or 700, seed=seed),
            from_burgers, recommended,
        ),
        Case(
            "allen-cahn", 1e-5, lambda seed: allen_cahn(),
            lambda seed, steps: PINN(MLP(8, width=20, layers=2, seed=seed), form=even, sampling=Staged(ResidualAdaptive(400), ResidualAdaptive(1000), 50), windows=10, max_steps=steps or 150, seed=seed),
            from_allen_cahn, recommended,
        ),
        Case(
            "viscosity", 1e-2, sensed,
            lambda seed, steps: PINN(sampling=Staged(FEW, ResidualAdaptive(1500)), max_steps=steps or 180, seed=seed),
            viscosity_error, newton, noise_limit,
        ),
    ]  # fmt: skip


def measure(case: Case, seeds: int, steps: int | None) -> dict[str, Any]:
    """One row: errors and processor seconds for every seed, and the control's."""
    errors, seconds, codes, others, times, limits = [], [], [], [], [], []
    solver = case.solver(0, steps)
    for seed in range(seeds):
        problem = case.problem(seed)
        begin = time.process_time()
        solution = sciml.solve(problem, case.solver(seed, steps))
        seconds.append(time.process_time() - begin)
        errors.append(case.error(problem, solution.value))
        codes.append(solution.code.name)
        print(f"  {case.name}, seed {seed}: {errors[-1]:.2e} in {seconds[-1]:.0f} s, {codes[-1]}", flush=True)
        if seed == 0 or case.limit is not None:
            begin = time.process_time()
            classical = case.control(problem)
            times.append(time.process_time() - begin)
            others.append(case.error(problem, getattr(classical, "value", classical)))
        if case.limit is not None:
            limits.append(case.limit(problem))
    name = type(classical.solver).__name__ if hasattr(classical, "solver") else "Gauss-Newton on ETDRK4"
    return {
        "case": case.name, "goal": case.goal, "errors": errors, "error": statistics.median(errors),
        "processor_seconds": statistics.median(seconds), "steps": solver.max_steps * solver.windows, "codes": codes,
        "control": name, "control_seconds": statistics.median(times), "control_error": statistics.median(others),
        "control_errors": others, "limits": limits, "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": "python -m tests.benchmark.pinn " + " ".join(sys.argv[1:]), "torch": torch.__version__,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| case | goal | error, median (all seeds) | processor s | steps | control | its error | its processor s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = ", ".join(f"{e:.1e}" for e in row["errors"])
        control = f"{row['control']} | {row['control_error']:.1e} | {row['control_seconds']:.2f}"
        lines.append(
            f"| {row['case']} | {row['goal']:.0e} | {row['error']:.1e} ({spread}) | {row['processor_seconds']:.0f} | {row['steps']} | {control} |"
        )
    return "\n".join(lines)


def page(rows: list[dict[str, Any]]) -> str:
    """The table with when, on what and by which command it was measured."""
    lines = [
        table(rows),
        "",
        f"One thread of a machine with {os.cpu_count()} CPU cores; seconds are those of the processor.",
        "",
    ]
    for row in rows:
        lines.append(f"- {row['case']}: {row['date']}, torch {row['torch']}, `{row['command']}`.")
        if row["limits"]:
            spread = ", ".join(f"{e:.1e}" for e in row["limits"])
            own = ", ".join(f"{e:.1e}" for e in row["control_errors"])
            lines.append(
                f"  Cramer-Rao bound on the standard deviation, by seed: {spread}; the control's errors: {own}."
            )
    return "\n".join(lines) + "\n"


def merged(out: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """New rows, and those of an earlier run for other cases, in the order of the cases."""
    kept = out.with_suffix(".json")
    found = {row["case"]: row for row in json.loads(kept.read_text())} if kept.exists() else {}
    found |= {row["case"]: row for row in rows}
    return [found[case.name] for case in cases() if case.name in found]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="instead of each case's own number")
    parser.add_argument("--out", type=Path, help="Markdown; the numbers go beside it as JSON")
    given = parser.parse_args()
    known = cases()
    unknown = set(given.only or ()) - {case.name for case in known}
    if unknown:
        parser.error(f"there is no case {sorted(unknown)[0]}; the cases are {', '.join(case.name for case in known)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for case in known:
        if given.only and case.name not in given.only:
            continue
        rows.append(measure(case, given.seeds, given.steps))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    print("\n" + table(rows))
    if given.out is not None:
        rows = merged(given.out, rows)
        given.out.write_text(page(rows))
        given.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
