"""Few measured samples of k-space, five ways: ``python examples/brain.py kspace.npy picture.png``.

The file is anything that ``sciml.problem("mri", data=...)`` opens: an array ``(coil, ky, kx)``, an ISMRMRD or a fastMRI file. Coil maps and noise are
estimated from it; all reconstructions share them. Without a file a scan of a phantom is simulated. Filled with zeros; conjugate gradients stopped at
the noise (CG-SENSE); total variation and wavelets, their weights by the discrepancy principle; and the mean of samples under the diffusion prior
``diffusion-ellipses``, whose images are real, by ``MagnitudePhase``. That prior was trained on random ellipses, not on anatomy: see what it makes
of the folds, and that it is not certified. *Fails when* the object moved, or k-space does not reach down to the noise.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sciml
from sciml.priors import Daubechies, MagnitudePhase, TotalVariation, Wavelet
from sciml.samplers import DecomposedDiffusion
from sciml.solvers import Discrepancy, LeastSquares, PrimalDual, ProximalGradient


def main(
    data: Any = None, picture: str | Path | None = None, samples: int = 4, **simulation: Any
) -> dict[str, dict[str, Any]]:
    """Chi-square per datum, outcome and seconds of each reconstruction; the picture shows the sizes of the images on one scale.

    ``data`` is a file, a data set or an array of k-space; without it ``simulation`` are the settings of the simulated scan.
    """
    if isinstance(data, np.ndarray | torch.Tensor):
        posed = sciml.problem("mri", kspace=data)
    else:
        posed = sciml.problem("mri", **({"n": 64, **simulation} if data is None else {"data": data}))
    posed = posed.to(torch.float32)
    learned = replace(sciml.pretrained("diffusion-ellipses"), precision=torch.bfloat16)
    learned = learned.scaled(posed.magnitude() / learned.largest)
    ways = {
        "CG-SENSE": (None, LeastSquares()),
        "total variation": (TotalVariation(), Discrepancy(PrimalDual())),
        "wavelets": (Wavelet(4, Daubechies(4)), Discrepancy(ProximalGradient())),
        f"diffusion, mean of {samples}": (MagnitudePhase(learned), DecomposedDiffusion(steps=49, samples=samples)),
    }
    blank = posed.forward.adjoint(posed.data)
    told, shown = {"zero-filled": row(posed, blank, "NO SOLVE", 0.0)}, {"zero-filled": blank}
    for name, (prior, solver) in ways.items():
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is not certified is told in the table
            solution = sciml.solve(posed.with_prior(prior), solver)
        told[name] = row(posed, solution.value, solution.code.name, time.perf_counter() - began)
        shown[name] = solution.value
    if picture is not None:
        draw(shown, told, picture)
    return told


def row(posed: Any, image: torch.Tensor, outcome: str, seconds: float) -> dict[str, Any]:
    """One line of the table."""
    chi = float(posed.misfit(image).mean())
    return {"chi^2/dof": round(chi, 3), "outcome": outcome, "seconds": round(seconds, 1)}


def draw(shown: dict[str, torch.Tensor], told: dict[str, dict[str, Any]], picture: str | Path) -> None:
    """Sizes of the complex images, side by side on one scale."""
    from matplotlib.figure import Figure

    sizes = {name: image[0, 0].abs() for name, image in shown.items()}
    top = float(sizes["CG-SENSE"].quantile(0.995))
    tall, wide = sizes["CG-SENSE"].shape
    figure = Figure(figsize=(3.2 * len(shown), 0.8 + 3.2 * tall / wide), layout="constrained")
    for axis, (name, size) in zip(figure.subplots(1, len(shown)), sizes.items(), strict=True):
        # The scale of an image filled with zeros is that of the samples alone.
        own = top if name != "zero-filled" else float(size.quantile(0.995))
        axis.imshow(size.numpy(), cmap="gray", vmin=0, vmax=own)
        axis.set_title(f"{name}\nchi^2/dof {told[name]['chi^2/dof']:.2f}, {told[name]['outcome']}", fontsize=9)
        axis.axis("off")
    figure.savefig(picture, dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", help="k-space; without it a simulated scan")
    parser.add_argument("picture", nargs="?", default="brain.png")
    parser.add_argument("--samples", type=int, default=4)
    chosen = parser.parse_args()
    for key, value in main(chosen.data, chosen.picture, chosen.samples).items():
        print(f"{key:24s} {value}")
    print(f"see {chosen.picture}")
