"""Every network in about a minute on one CPU core: made, trained, judged on members it never saw, and drawn.

    python examples/networks.py                          # all of them, a quarter of an hour
    python examples/networks.py fno mgno --plot two.png  # some

Operators learn Burgers' equation (start to state at time 1, 128 points) or two-phase Darcy flow (coefficient to pressure, 31 x 31 points) from
240 members; networks of the position solve Poisson's equation by `PINN`; networks of images learn to remove noise from random
ellipses. Networks that are the steps of a solver have an example of their own, `unfolded.py`. Errors are relative L2 norms.

*Fails when* more is expected of it than of a first try: for figures with long training see `tests/benchmark/networks.md`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sciml
from sciml import networks
from sciml.domains import Ellipses, Pixels
from sciml.learned import PINN
from sciml.networks.output_maps import Distance, Nodes, Scale
from sciml.priors import Diffusion, LearnedProx
from sciml.show.canvas import Panel, panels, save, tidy
from sciml.training import Muon, Reflection, Translation, Transposition
from sciml.training.matching import Squares, Stage, match

MIRRORS = (Reflection(), Transposition())
NOISE = 0.1  # on ellipses


@dataclass(frozen=True)
class Told:
    """What came of a network: its number of real weights, its error on members not seen, one truth and one answer."""

    weights: int
    error: float
    truth: Tensor
    answer: Tensor


def size(network: nn.Module) -> int:
    """Real weights: a complex one counts as two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in network.parameters())


@cache
def members(problem: str, folder: Path) -> tuple[Any, Any, Any]:
    """Data to train on, to choose by, to judge by."""
    settings: dict[str, Any] = {"n": 128, "times": [0.0, 1.0], "viscosity": 0.01}
    if problem == "darcy":
        settings = {"n": 31, "medium": "two_phase"}
    file = folder / f"{problem}.h5"
    if not file.exists():
        sciml.generate(problem, count=320, out=file, seed=0, **settings)
    data = sciml.open_dataset(file)
    data = data.isel(time=[-1]) if "time" in data.sizes else data
    found: tuple[Any, Any, Any] = sciml.split(data, (240, 40, 40), seed=0)
    return found


def operator(problem: str, network: nn.Module, epochs: int, folder: Path, **recipe: Any) -> Told:
    """From a field to a field, learned from examples."""
    inputs = {"burgers": "start", "darcy": "coefficient"}[problem]
    augment = (Translation(),) if problem == "burgers" else MIRRORS
    if isinstance(network, networks.SymmetricFNO):
        augment = ()
    train, choose, test = members(problem, folder)
    fit = sciml.fit(
        network, train, inputs=inputs, targets="u", validate=choose, epochs=epochs, augment=augment,
        **{"learning_rate": 3e-3, **recipe},
    )  # fmt: skip
    one = test.isel(sample=[0])
    answer = torch.from_numpy(fit.predict(one).u.values)
    return Told(size(network), fit.score(test).relative_l2, torch.from_numpy(one.u.values)[0], answer[0])


def position(network: nn.Module, steps: int) -> Told:
    """From a point to a value: no data, Poisson's equation and its boundary alone."""
    problem = sciml.problem("poisson", n=31)
    found = sciml.solve(problem, PINN(network, max_steps=steps)).value
    error = float((found - problem.exact).norm() / problem.exact.norm())
    return Told(size(network), error, problem.exact[0, 0], found[0, 0])


def ellipses(count: int, generator: torch.Generator) -> Tensor:
    """Random images of 64 x 64 pixels."""
    drawn = Ellipses.random(count, generator=generator, dtype=torch.float32)
    return drawn.image(Pixels((64, 64), extent=2.0))


def judged(network: nn.Module, denoise: Callable[[Tensor], Tensor]) -> Told:
    """How well noise is removed from images not seen."""
    generator = torch.Generator().manual_seed(1)
    clean = ellipses(16, generator)
    with torch.no_grad():
        found = denoise(clean + NOISE * torch.randn(clean.shape, generator=generator))
    error = ((found - clean).flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1)).mean()
    return Told(size(network), float(error), clean[0, 0], found[0, 0])


def denoiser(network: nn.Module, epochs: int) -> Told:
    """From a noisy image of any level of noise to a clean one."""
    images = ellipses(512, torch.Generator().manual_seed(0))
    prior = Diffusion(network, scale=0.2, shift=0.0, range=(-0.7, 0.7), levels=(0.02, 1.0))
    fitted = sciml.fit(prior, images, epochs=epochs, steps=50, batch_size=8, learning_rate=2e-3, optimizer=Muon())
    return judged(network, lambda noisy: fitted.prior.denoise(noisy, NOISE))


def convex(network: networks.InputConvexNetwork, steps: int) -> Told:
    """The same by the gradient of a convex function, at one level of noise."""
    stages = (Stage(Squares(), steps, 7e-3),)
    match(network, lambda n, generator: ellipses(n, generator) / NOISE, noise=1.0, stages=stages, batch_size=8)
    return judged(network, lambda noisy: LearnedProx(network, scale=NOISE, noise=NOISE).prox(noisy))


PAD = 5 / 31
HEIGHT = 0.03  # of the pressure, about
STORIES: dict[str, Callable[[Path, float], Told]] = {
    "fno": lambda f, k: operator("burgers", networks.FNO(1, modes=16, width=48), most(60, k), f),
    "galerkin": lambda f, k: operator(
        "burgers", networks.GalerkinTransformer(1, width=48, modes=16, grid="periodic"), most(40, k), f, learning_rate=1e-3
    ),
    "fourier": lambda f, k: operator(
        "burgers", networks.FourierTransformer(1, width=48, modes=16, grid="periodic"), most(60, k), f, learning_rate=1e-3
    ),
    "deeponet": lambda f, k: operator("burgers", networks.DeepONet(1, sensors=128, grid="periodic"), most(300, k), f),
    "multionet": lambda f, k: operator("burgers", networks.MultiONet(1, sensors=128, grid="periodic"), most(300, k), f),
    "mgno": lambda f, k: operator("darcy", networks.MgNO(2, width=20), most(20, k), f),
    "rounded": lambda f, k: operator("darcy", networks.Rounded(networks.MgNO(2, width=20)), most(40, k), f),
    "unet": lambda f, k: operator("darcy", networks.UNet(2, widths=(24, 48, 64)), most(30, k), f),
    "symmetric_fno": lambda f, k: operator(
        "darcy", networks.SymmetricFNO(2, modes=8, width=16, padding=PAD), most(60, k), f
    ),
    "mapped": lambda f, k: operator(
        "darcy", networks.Mapped(networks.FNO(2, modes=8, width=24, padding=PAD), outputs=(Scale(scale=HEIGHT), Distance(Nodes(("interior",) * 2)))),
        most(30, k), f, normalise=False,
    ),
    "mlp": lambda f, k: position(networks.MLP(2, width=24, layers=2), most(60, k)),
    "siren": lambda f, k: position(networks.SIREN(2, width=24, layers=2, omega=3.0), most(60, k)),
    "denoiser": lambda f, k: denoiser(networks.BiasFreeDenoiser(2, width=24, layers=8), most(12, k)),
    "convex": lambda f, k: convex(networks.InputConvexNetwork(2, width=48, scales=2, layers=1), most(300, k)),
}  # fmt: skip


def most(epochs: int, share: float) -> int:
    """A share of the epochs, one at least."""
    return max(1, round(epochs * share))


def main(
    names: tuple[str, ...] = (), plot: Path | None = None, folder: Path = Path("build/examples"), share: float = 1.0
) -> dict[str, Told]:
    """Run the stories named (all, if none is), print a line for each, draw truth, answer and error."""
    unknown = set(names) - set(STORIES)
    if unknown:
        raise SystemExit(f"there is no network {sorted(unknown)[0]!r} here; there are {', '.join(STORIES)}")
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in names or STORIES:
        began = time.perf_counter()
        found[name] = told = STORIES[name](folder, share)
        seconds = time.perf_counter() - began
        sys.stdout.write(f"{name:14s} {told.weights:9,d} weights   relative L2 {told.error:.1e}   {seconds:.0f} s\n")
        sys.stdout.flush()
    if plot is not None:
        draw(found, plot)
    return found


def draw(found: dict[str, Told], path: Path) -> None:
    """One row per network."""
    shown = []
    for name, told in found.items():
        truth, answer = (part.detach().squeeze().float() for part in (told.truth, told.answer))
        for title, field in ((f"{name}: truth", truth), ("answer", answer), ("difference", answer - truth)):
            shown.append(Panel(partial(field_panel, title, field)))
    save(panels(shown, columns=3, size=(3.2, 2.4)), path)


def field_panel(title: str, field: Tensor, axes: Any) -> None:
    """A line or an image with its colour bar."""
    tidy(axes, title=title)
    if field.ndim == 1:
        axes.plot(field.numpy())
        return
    axes.grid(False)
    axes.figure.colorbar(axes.imshow(field.numpy().T, origin="lower"), ax=axes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(STORIES))
    parser.add_argument("--plot", type=Path, default=Path("build/examples/networks.png"))
    given = parser.parse_args()
    main(tuple(given.names), given.plot)
