"""Does a network's guess help a Krylov solver? Steps and time, inference included, at three tolerances.

    python -m tests.benchmark.chained --out table.md

Darcy's equation through two-phase media at 85^2 points, members the network has not seen. A Fourier neural operator is trained
first (its error is printed). Each solve is timed alone, member by member: plain CG, CG from the network's answer, and both
with one multigrid cycle as preconditioner. Medians over members, with the interquartile range of the times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch

import sciml
from sciml.learned import Trained
from sciml.networks import FNO
from sciml.solvers import Chained, ConjugateGradient, Multigrid
from sciml.training import Reflection, Transposition

TOLERANCES = (1e-4, 1e-7, 1e-10)


def relative_residual(problem: object, value: torch.Tensor) -> float:
    """``|b - A u| / |b|``."""
    rhs = problem.rhs  # type: ignore[attr-defined]
    return float(torch.linalg.vector_norm(problem.residual(value)) / torch.linalg.vector_norm(rhs))  # type: ignore[attr-defined]


def measure(n: int, members: int, train: int, epochs: int) -> dict[str, object]:
    """Train, then time every member with every solver."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "darcy.h5"
        sciml.generate("darcy", count=train + 50, out=path, n=n, seed=1, progress=False)
        fitted, test = sciml.split(sciml.open_dataset(path), (train, 50), seed=0)
        begin = time.perf_counter()
        fit = sciml.fit(
            FNO(dim=2, modes=10, width=24),
            fitted,
            inputs="coefficient",
            targets="u",
            epochs=epochs,
            augment=(Reflection(), Transposition()),
            seed=0,
            progress=False,
        )
        seconds = time.perf_counter() - begin
        error = fit.score(test).relative_l2
    network = Trained(fit)
    problems = [sciml.problem("darcy", n=n, seed=1000 + i) for i in range(members)]
    solvers = {
        "CG": ConjugateGradient(max_steps=3000),
        "network, then CG": Chained(network, ConjugateGradient(max_steps=3000)),
        "multigrid-CG": ConjugateGradient(preconditioner=Multigrid()),
        "network, then multigrid-CG": Chained(network, ConjugateGradient(preconditioner=Multigrid())),
    }
    rows = []
    for tolerance in TOLERANCES:
        for name, solver in solvers.items():
            times, steps, residuals = [], [], []
            for number, problem in enumerate([problems[0], *problems]):
                # The gate that goes with a relative residual: |r| <= tolerance |b| at the size of the solution.
                exact = sciml.solve(problem, ConjugateGradient(preconditioner=Multigrid())).value
                scale = (
                    float(problem.operator.size_bound())
                    * float(torch.linalg.vector_norm(exact))
                    / float(torch.linalg.vector_norm(problem.rhs))
                )
                posed = problem.with_target(discrete=2 * tolerance / (scale + 1))
                begin = time.perf_counter()
                answer = solver.run(posed, None, sciml.core.Context())
                if number:  # the first is a warm-up
                    times.append(time.perf_counter() - begin)
                    steps.append(answer.steps)
                    residuals.append(relative_residual(problem, answer.value))
            quartiles = statistics.quantiles(times, n=4)
            rows.append(
                {
                    "tolerance": tolerance,
                    "solver": name,
                    "steps": statistics.median(steps),
                    "seconds": statistics.median(times),
                    "quartiles": [quartiles[0], quartiles[2]],
                    "residual": max(residuals),
                }
            )
    with torch.no_grad():
        start = network.run(problems[0], None, sciml.core.Context()).value
    return {
        "n": n,
        "members": members,
        "train": train,
        "epochs": epochs,
        "training seconds": seconds,
        "test relative L2": error,
        "relative residual of the guess": relative_residual(problems[0], start),
        "rows": rows,
    }


def table(found: dict[str, object]) -> str:
    """A Markdown table of the rows."""
    lines = [
        f"Darcy {found['n']}^2, two-phase 12/3; network trained on {found['train']} members in {found['training seconds']:.0f} s, relative L2 on 50 others {found['test relative L2']:.4f}, relative residual of its answer {found['relative residual of the guess']:.2f}; {found['members']} members, one at a time.",
        "",
        "| relative residual | solver | steps | ms (quartiles) |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:  # type: ignore[attr-defined]
        low, high = (1e3 * q for q in row["quartiles"])
        lines.append(
            f"| {row['tolerance']:.0e} | {row['solver']} | {row['steps']:.0f} | {1e3 * row['seconds']:.1f} ({low:.1f} to {high:.1f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--n", type=int, default=85)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--train", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = measure(given.n, given.members, given.train, given.epochs)
    text = table(found)
    print(text)
    if given.out is not None:
        given.out.write_text(text)
        given.out.with_suffix(".json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
