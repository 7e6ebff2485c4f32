"""The main job from end to end, on a processor in a few minutes.

1. Solve: Poisson and Darcy with certificate, Burgers as a movie, a gradient through a solve.
2. Reconstruct: an image from few line integrals, by a formula, a classical prior and a learned one.
3. Learn: generate a data set, train a Fourier neural operator on it, use it as a solver and as the start of one.

Run ``python examples/demo.py``; it ends with the path of one page that shows everything. With SCIML_REAL_DATA set to a folder
that holds ``pde/burgers.mat`` it also follows that trajectory, made by somebody else, and with ``ct_tooth/tooth.h5`` it
reconstructs that measured scan from every sixth view.
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch

import sciml
from sciml import show
from sciml.learned import Trained
from sciml.metrics import psnr
from sciml.networks import FNO
from sciml.priors import TotalVariation
from sciml.solvers import (
    ADMM,
    Chained,
    ConjugateGradient,
    Discrepancy,
    FilteredBackprojection,
    Multigrid,
    PrimalDual,
)


def solve_part(folder: Path, n: int = 511) -> tuple[dict[str, float], list[Any]]:
    """Catalogue problems with the solvers that they recommend."""
    poisson = sciml.solve(sciml.problem("poisson", dim=2, n=n))
    print(f"poisson  {poisson}")
    darcy = sciml.solve(sciml.problem("darcy", n=n // 2))
    print(f"darcy    {darcy}")
    block = sciml.solve(sciml.problem("poisson", dim=3, n=31))
    print(f"3-D      {block}")
    times = [i / 50 for i in range(51)]
    movie = sciml.solve(sciml.problem("burgers", n=n + 1, viscosity=0.01, times=times, seed=3))
    print(f"burgers  {movie}")
    for name, solution in (("poisson", poisson), ("darcy", darcy), ("poisson_3d", block), ("burgers", movie)):
        solution.plot(folder / f"{name}.png")
    movie.plot(folder / "burgers.gif")
    darcy.save(folder / "darcy.nc")
    slope, quotient = gradient()
    print(
        f"gradient of the mean square temperature with respect to the diffusivity: {slope:.8f} (differences: {quotient:.8f})"
    )
    numbers = {
        "poisson, discrete backward error": float(poisson.checks[0].value.max()),
        "darcy, discrete backward error": float(darcy.checks[0].value.max()),
        "burgers, error of the time steps": float(movie.checks[0].value.max()),
        "all four certified": float(poisson.ok and darcy.ok and block.ok and movie.ok),
        "gradient": slope,
        "gradient by differences": quotient,
    }
    told = {
        "d(mean square of u) / d(diffusivity), through the solve": slope,
        "the same by central differences": quotient,
    }
    page = [
        poisson,
        darcy,
        block,
        movie,
        "Burgers, as a movie",
        folder / "burgers.gif",
        "Gradient through a solve of the heat equation",
        told,
    ]
    return numbers, page


def gradient() -> tuple[float, float]:
    """A derivative through a solve, and the same by central differences."""

    def loss(k: torch.Tensor) -> torch.Tensor:
        return sciml.solve(sciml.problem("heat", n=31, diffusivity=k)).value.square().mean()

    k = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    loss(k).backward()
    step = 1e-4
    with torch.no_grad():
        quotient = (loss(k + step) - loss(k - step)) / (2 * step)
    assert k.grad is not None
    return float(k.grad), float(quotient)


def reconstruct_part(folder: Path, n: int = 128) -> tuple[dict[str, float], list[Any]]:
    """A simulated scan of 30 views, the same lines for a formula, total variation and two learned priors."""
    ct = sciml.problem("ct", n=n, batch=1, seed=5, dtype=torch.float32)
    learned = sciml.pretrained("lpn-ellipses")
    unfolded = sciml.pretrained("unfolded-ellipses")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a formula earns no certificate, and says so
        solutions = [
            sciml.solve(ct.with_prior(None), FilteredBackprojection()),
            sciml.solve(ct.with_prior(TotalVariation()), Discrepancy(PrimalDual())),
            sciml.solve(ct.with_prior(learned), Discrepancy(ADMM(max_steps=100))),
            sciml.solve(ct.with_prior(unfolded), unfolded.solver()),
        ]
    names = ["filtered back-projection", "total variation", "learned proximal network", "unfolded steps"]
    quality = [float(psnr(solution.value, ct.truth)) for solution in solutions]
    for name, solution, found in zip(names, solutions, quality, strict=True):
        print(f"{name}: {found:.1f} dB, {solution}")
    solutions[1].plot(folder / "ct.png")
    section = show.reconstructions(solutions, names=names, heading="An image from 30 views")
    numbers = {f"30 views, {name}, PSNR": found for name, found in zip(names, quality, strict=True)}
    numbers["total variation certified"] = float(solutions[1].ok)
    return numbers, [section, *tooth(folder)]


def tooth(folder: Path, n: int = 320) -> list[Any]:
    """A measured scan of a tooth, if it is at hand: every sixth of 181 views."""
    path = Path(os.environ.get("SCIML_REAL_DATA", "")) / "ct_tooth" / "tooth.h5"
    if not os.environ.get("SCIML_REAL_DATA") or not path.is_file():
        return []
    ct = sciml.problem("ct", data=str(path), every=6, n=n, dtype=torch.float32).with_target(optimality=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formula = sciml.solve(ct.with_prior(None), FilteredBackprojection())
        tv = sciml.solve(ct.with_prior(TotalVariation()), Discrepancy(PrimalDual()))
    print(f"tooth.h5 from 31 views: {tv}")
    tv.plot(folder / "tooth.png")
    names = ["filtered back-projection", "total variation"]
    return [show.reconstructions([formula, tv], names=names, heading="A tooth, measured: 31 of 181 views")]


def learn_part(folder: Path, count: int, n: int, epochs: int) -> tuple[dict[str, float], list[Any]]:
    """Data from the catalogue, a network from the data, a solver from the network."""
    path = sciml.generate("darcy", count=count, out=folder / "darcy.h5", n=n)
    data = sciml.open_dataset(path)
    train, validate, test = sciml.split(data, (0.8, 0.1, 0.1), seed=0)
    print(f"darcy.h5: {count} certified members on {n} x {n} nodes")
    fit = sciml.fit(
        FNO(dim=2, modes=8, width=20), train, inputs="coefficient", targets="u", validate=validate, epochs=epochs,
        learning_rate=5e-3, augment=sciml.problem("darcy", n=n).symmetries, out=folder / "run",
    )  # fmt: skip
    score = fit.score(test)
    print(f"network  {score}")
    show.training_curves(fit, folder / "training.png")
    picture = show.samples(fit, test, 3, folder / "samples.png")

    unseen = sciml.problem("darcy", n=n, batch=8, seed=12345)
    trained, chained, zero = Trained(fit), {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the network alone is not certified, which is the point
        guess = sciml.solve(unseen, trained)
    print(f"trained  {guess}")
    rows = []
    for name, solver in (
        ("ConjugateGradient", ConjugateGradient()),
        ("ConjugateGradient, Multigrid", ConjugateGradient(preconditioner=Multigrid())),
    ):
        zero[name], chained[name] = sciml.solve(unseen, solver), sciml.solve(unseen, Chained(trained, solver))
        for start, solution in (("zero", zero[name]), ("network", chained[name])):
            rows.append(
                {"solver": name, "start": start, "steps": int(solution.stats["steps"]), "code": solution.code.name}
            )
            print(f"{name} from {start}: {rows[-1]['steps']} steps, {solution.code.name}")
    last = chained["ConjugateGradient, Multigrid"]
    numbers = {
        "network, relative L2 on unseen members": score.relative_l2,
        "network alone certified": float(guess.ok),
        "network alone, discrete backward error": float(guess.checks[0].value.max()),
        "network and solver certified": float(all(solution.ok for solution in chained.values())),
        "steps of conjugate gradients from zero": float(zero["ConjugateGradient"].stats["steps"]),
        "steps of conjugate gradients from the network": float(chained["ConjugateGradient"].stats["steps"]),
    }
    page = [
        fit,
        score,
        "Members that the network never saw",
        picture,
        "The network alone as a solver",
        guess,
        "The network as the start of a solver",
        rows,
        last,
    ]
    return numbers, page


def measured(folder: Path) -> tuple[dict[str, float], list[Any]]:
    """Follow a trajectory made by somebody else: viscosity 0.1, periodic, its first frame as the start."""
    path = Path(os.environ.get("SCIML_REAL_DATA", "")) / "pde" / "burgers.mat"
    if not os.environ.get("SCIML_REAL_DATA") or not path.is_file():
        return {}, []
    theirs = sciml.open_dataset(path)["usol"].transpose("time", "x")
    x, times = theirs.x.values, theirs.time.values
    values = torch.as_tensor(theirs.values, dtype=torch.float64)
    length = float(x[1] - x[0]) * len(x)
    posed = sciml.problem("burgers", n=len(x), length=length, viscosity=0.1, start=values[0], times=times.tolist())
    solution = sciml.solve(posed.with_target(steps=1e-9))
    error = float(torch.linalg.vector_norm(solution.value[0, :, 0] - values) / torch.linalg.vector_norm(values))
    print(f"burgers.mat: {error:.1e} relative L2 from somebody else's trajectory, over the whole window")
    solution.plot(folder / "burgers_mat.png")
    return {"burgers.mat, relative L2": error}, [
        "Somebody else's trajectory",
        {"relative L2 difference over the whole window": error},
        solution,
    ]


def main(
    out: str | Path = "demo", *, n: int = 511, pixels: int = 128, count: int = 400, grid: int = 31, epochs: int = 40
) -> dict[str, float]:
    """Run all parts, write pictures, data and ``report.html`` into ``out``, and return the numbers."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    first, page = solve_part(folder, n)
    found, more = measured(folder)
    images, pictures = reconstruct_part(folder, pixels)
    middle = time.perf_counter()
    second, learned = learn_part(folder, count, grid, epochs)
    seconds = {"seconds of solving": middle - began, "seconds of learning": time.perf_counter() - middle}
    numbers = {**first, **found, **images, **second, **seconds}
    path = show.report(
        [numbers, *page, *more, *pictures, *learned], folder / "report.html", title="sciml: solve, learn, certify"
    )
    print(f"solving {seconds['seconds of solving']:.0f} s, learning {seconds['seconds of learning']:.0f} s")
    print(f"report: {path.resolve()}")
    return numbers


if __name__ == "__main__":
    main()
