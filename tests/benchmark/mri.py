"""Magnetic resonance beside its peers, in one process, in turn: `python -m tests.benchmark.mri --out mri.md`.

Reconstructions: eight coils of measured k-space, (8, 230, 180), eight times undersampled
(`$SCIML_REAL_DATA/mri_kspace/cartesian_ksp.npy`), coil maps by our ESPIRiT for both, complex64, one weight. SigPy's (0.1.27) apps with
their defaults, 100 iterations, against ours: `LeastSquares` to its certificate, with `Smoothness(order=0)` for
CG-SENSE's ridge; for wavelets as many steps of `ProximalGradient` as it takes to reach SigPy's objective. Objectives are
computed by us, in double precision, for both images:

    ridge    |A x - y|^2 / 2 + weight |x|^2 / 2,
    wavelet  |A x - y|^2 / 2 + weight |details of W x|_1,   W periodic, four levels of Daubechies' with four moments (db4),
    all      |A x - y|^2 / 2 + weight |V x|_1,              V SigPy's own: zeros beyond the sides, averages counted too;

for the last both methods shrink all coefficients of V, ours by our own transform (`Zeros` below).

NUFFT: 256 x 256 pixels, 66 000 points, forward and adjoint together, complex64, accuracy 1e-4 and 1e-6: ours with kept plans, bare
finufft's simple calls, and torchkbnufft's defaults.

Processor time, which a busy machine disturbs less; median of the repetitions after a warm-up, in turn.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sciml
from sciml.core import GaussianNoise, Inverse
from sciml.core.noise import across, total
from sciml.core.prior import Prior
from sciml.domains import Pixels
from sciml.forward import Fourier, NonuniformFFT, NonuniformFourier, espirit
from sciml.priors import Daubechies, Smoothness, Wavelet
from sciml.solvers import LeastSquares, ProximalGradient

WEIGHTS = {"ridge": (0.01, 0.1), "wavelet": (0.01, 0.05), "all": (0.01, 0.05)}
LEVELS, FAMILY = 4, Daubechies(4)
STEPS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 20, 25, 30, 45, 70, 100)
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Zeros(Prior):
    """``|V x|_1`` over all coefficients of a transform with zeros beyond the sides; shrunk as if V were orthonormal, as SigPy does."""

    shape: tuple[int, ...]
    only_step = None

    def coefficients(self, x: Tensor) -> list[Tensor]:
        """Per level the bands of details, at the end the averages; real and imaginary parts in front."""
        rest = torch.view_as_real(x).movedim(-1, 0).contiguous()
        rest = torch.nn.functional.pad(rest, (0, self.shape[1] % 2, 0, self.shape[0] % 2))
        found = []
        for first, second in matrices(self.shape, x.real.dtype):
            whole = first @ rest @ second.mT
            p, q = len(first) // 2, len(second) // 2
            rest = whole[..., :p, :q].contiguous()
            whole[..., :p, :q] = 0
            found.append(whole)
        return [*found, rest]

    def image(self, parts: list[Tensor], like: Tensor) -> Tensor:
        """The transpose of ``coefficients``."""
        rest = parts[-1]
        for whole, (first, second) in reversed(list(zip(parts, matrices(self.shape, like.real.dtype), strict=False))):
            p, q = len(first) // 2, len(second) // 2
            whole = whole.clone()
            whole[..., :p, :q] = rest[..., :p, :q]
            rest = first.mT @ whole @ second
        rest = rest[..., : self.shape[0], : self.shape[1]]
        return torch.complex(rest[0], rest[1])

    def energy(self, x: Tensor) -> Tensor:
        """The sum of the sizes of all coefficients."""
        found = torch.zeros(len(x), dtype=torch.float64)
        for part in self.coefficients(x):
            found = found + total(torch.hypot(part[0], part[1]))
        return found

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """``V^H shrink(V v)``."""
        limit = across(step, v)
        shrunk = []
        for part in self.coefficients(v):
            size = torch.hypot(part[0], part[1])
            shrunk.append(part * (1 - limit / size.clamp_min(1e-30)).clamp_min(0.0))
        return self.image(shrunk, v)


@functools.cache
def matrices(shape: tuple[int, ...], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Per level what acts on the first and on the second axis: averages above details. Made once."""
    found, sizes = [], [n + n % 2 for n in shape]
    for _ in range(LEVELS):
        pair = [torch.from_numpy(analysis(n)).to(dtype) for n in sizes]
        found.append((pair[0], pair[1]))
        sizes = [len(m) // 2 for m in pair]
    return found


def analysis(n: int) -> np.ndarray:
    """The filter bank on ``n`` values with zeros beyond: every coefficient that is not always zero, averages first."""
    taps = np.array(FAMILY.taps())
    mirror = taps[::-1] * (-1.0) ** np.arange(len(taps))
    rows = (n + len(taps) - 1) // 2
    matrix = np.zeros((2 * rows, n))
    for band, filter in enumerate((taps, mirror)):
        for i in range(rows):
            for j, weight in enumerate(filter):
                at = 2 * i + j - (len(taps) - 2)
                if 0 <= at < n:
                    matrix[band * rows + i, at] = weight
    return matrix


@dataclass(frozen=True, eq=False)
class Scan:
    """The measured data, our maps, and our operator."""

    kspace: Tensor
    maps: Tensor
    forward: Fourier

    @property
    def data(self) -> Tensor:
        """What was sampled."""
        return self.forward.sample(self.kspace[None])

    def prior(self, kind: str) -> Any:
        """The regulariser of a task."""
        made = {"ridge": Smoothness(order=0.0), "wavelet": Wavelet(LEVELS, FAMILY), "all": Zeros(self.maps.shape[1:])}
        return made[kind]

    def objective(self, kind: str, weight: float, image: Any) -> float:
        """In double precision."""
        x = torch.as_tensor(np.asarray(image).copy()).reshape(1, 1, *self.maps.shape[1:]).to(torch.complex128)
        exact = Fourier(self.forward.pixels, self.maps.to(torch.complex128), self.forward.mask)
        rest = exact(x) - self.data.to(torch.complex128)
        return float(total(rest.abs().square()) / 2 + weight * self.prior(kind).energy(x))

    def problem(self, kind: str, weight: float) -> Inverse:
        """Ours."""
        return Inverse(kind, self.forward, self.data, GaussianNoise(1.0), self.prior(kind), weight=weight)


def opened() -> Scan:
    """The measured brain."""
    place = os.environ.get("SCIML_REAL_DATA")
    if place is None:
        raise SystemExit("set SCIML_REAL_DATA to the folder that holds mri_kspace/cartesian_ksp.npy")
    kspace = torch.from_numpy(np.load(Path(place) / "mri_kspace" / "cartesian_ksp.npy"))
    maps = espirit(kspace)
    shape = tuple(kspace.shape[1:])
    pixels = Pixels(shape, tuple(float(n) for n in shape))
    return Scan(kspace, maps, Fourier(pixels, maps, (kspace != 0).any(0)))


def sigpy(scan: Scan, kind: str, weight: float) -> Any:
    """SigPy's app with its defaults."""
    import sigpy.mri

    app = sigpy.mri.app.SenseRecon if kind == "ridge" else sigpy.mri.app.L1WaveletRecon
    return app(scan.kspace.numpy(), scan.maps.numpy(), weight, show_pbar=False).run()


def ours(scan: Scan, kind: str, weight: float, steps: int) -> Any:
    """The image, and whether the certificate was earned."""
    solver = LeastSquares() if kind == "ridge" else ProximalGradient(max_steps=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sciml.solve(scan.problem(kind, weight), solver, strict=False)


def timed(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of every call, in turn."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            call()
            found[name].append(time.process_time() - start)
    return found


def reconstructions(scan: Scan, repeats: int) -> list[dict[str, Any]]:
    """Every task at every weight."""
    rows = []
    for kind, weights in WEIGHTS.items():
        for weight in weights:
            theirs = scan.objective(kind, weight, sigpy(scan, kind, weight))
            steps, mine = 0, math.inf
            for steps in STEPS:
                solution = ours(scan, kind, weight, steps)
                mine = scan.objective(kind, weight, solution.value)
                if mine <= theirs * (1 + TOLERANCE):
                    break
            chosen = {
                "SigPy": lambda k=kind, w=weight: sigpy(scan, k, w),
                "ours": lambda k=kind, w=weight, n=steps: ours(scan, k, w, n),
            }
            spent = timed(chosen, repeats)
            seconds = {name: statistics.median(values) for name, values in spent.items()}
            rows.append(
                {
                    "task": kind,
                    "weight": weight,
                    "objective SigPy": theirs,
                    "objective ours": mine,
                    "excess": mine / theirs - 1,
                    "steps ours": int(solution.stats["steps"]),
                    "seconds SigPy": seconds["SigPy"],
                    "seconds ours": seconds["ours"],
                    "times faster": seconds["SigPy"] / seconds["ours"],
                    "spread": [min(spent["SigPy"]) / max(spent["ours"]), max(spent["SigPy"]) / min(spent["ours"])],
                }
            )
    return rows


def transforms(repeats: int, n: int = 256, count: int = 66_000) -> list[dict[str, Any]]:
    """Forward and adjoint off the grid."""
    import finufft
    import torchkbnufft

    points = (torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * n
    x = torch.randn(1, 1, n, n, generator=torch.Generator().manual_seed(1), dtype=torch.complex64)
    angles = points * (2 * math.pi / n)
    kx, ky = (column.contiguous().numpy() for column in angles.unbind(1))
    image, rows = x[0, 0].numpy(), []
    there, back = torchkbnufft.KbNufft(im_size=(n, n)), torchkbnufft.KbNufftAdjoint(im_size=(n, n))
    for accuracy in (1e-4, 1e-6):
        operator = NonuniformFourier(
            Pixels((n, n)), points, torch.ones(1, n, n, dtype=x.dtype), NonuniformFFT(accuracy)
        )
        y = operator(x)
        values = y[0, 0].numpy()
        threads = {"eps": accuracy, "nthreads": torch.get_num_threads()}
        calls: dict[str, Callable[[], Any]] = {
            "ours": lambda op=operator, v=y: (op(x), op.adjoint(v)),
            "finufft": lambda v=values, t=threads: (
                finufft.nufft2d2(kx, ky, image, isign=-1, **t),
                finufft.nufft2d1(kx, ky, v, (n, n), isign=1, **t),
            ),
            "torchkbnufft": lambda v=y: (there(x, angles.mT), back(v, angles.mT)),
        }
        spent = timed(calls, repeats)
        seconds = {name: statistics.median(found) for name, found in spent.items()}
        rows.append(
            {
                "accuracy": accuracy,
                **{f"seconds {name}": value for name, value in seconds.items()},
                "times finufft": seconds["ours"] / seconds["finufft"],
                "times faster than torchkbnufft": seconds["torchkbnufft"] / seconds["ours"],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return " to ".join(f"{v:.3g}" for v in value)
        return f"{value:.5g}" if isinstance(value, float) else str(value)

    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cell(row[key]) for key in head) + " |" for row in rows)])


def main() -> None:
    """Run all and write the table and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("mri.md"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    off = transforms(given.repeats)
    print(table(off), flush=True)
    on = reconstructions(opened(), given.repeats)
    print(table(on))
    told = f"{platform.processor() or platform.machine()}, {given.threads} thread(s), torch {torch.__version__}, {given.repeats} repetitions"
    given.out.write_text(f"# Magnetic resonance\n\n{told}\n\n{table(on)}\n\n{table(off)}\n")
    given.out.with_suffix(".json").write_text(
        json.dumps({"machine": told, "reconstructions": on, "transforms": off}, indent=1)
    )


if __name__ == "__main__":
    main()
