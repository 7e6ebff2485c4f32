"""Non-uniform fast Fourier transforms (finufft) with kept plans, and line integrals by the Fourier slice theorem made of them.

The transform of a projection along its axis is the transform of the image along a ray through the origin. The image is
taken as band-limited: sinc interpolation of the values at the pixel centres, frequencies up to ``pi / h`` with h the
smaller pixel size (and within the band of each axis). Its transform on a polar grid, half a circle of it because images
are real, is a transform of type 2; a real inverse FFT along every ray, over a period so long that neighbouring copies of
the object miss the detector, gives the projections at the bins (points; a pitch wider than a pixel is sampled from a
finer row). The transpose is the same in reverse order, with the weights 1, 2, ..., 2, 1 of the real inverse FFT, phases
conjugated, and type 1 in place of type 2. Both types spread with one kernel: they are transposes of each other up to
rounding, whatever their accuracy.

Barnett, Magland, af Klinteberg, SIAM J. Sci. Comput. 41, 2019, doi:10.1137/18M120885X.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.forward._joseph import Rays
from sciml.forward._sizes import quick_size

__all__ = ["SINGLE", "SliceTransform", "Transforms", "engine"]

MARGIN = 8  # bins between the periodic copies
TOGETHER = 8  # images transformed by one plan
PLANS = 4  # plans kept per geometry
WORK = 500_000  # points and pixels that make a thread of the engine worth while: its threads and torch's get in each other's way
COARSE = 1e-8  # accuracies above this are reached with a fine grid of 1.25 instead of 2 times the image
SINGLE = 1e-6  # the best accuracy in single precision


def engine(device: torch.device, who: str = "FourierSlice", instead: str = "RayDriven()") -> Any:
    """The module that transforms on a device, or InputError with what to install, or to use instead."""
    name = "cufinufft" if device.type == "cuda" else "finufft"
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"{who} runs on the CPU and on CUDA, not on {device.type}; use {instead}")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        ask = "pip install sciml[nufft]" if name == "finufft" else "pip install cufinufft"
        raise InputError(f"{who} needs {name}: {ask}, or use {instead}") from error


class Transforms:
    """Transforms between images of one shape and one set of points (radians per pixel, one array per axis).

    Type 2, images to points, has the sign -1 and type 1, points to images, the sign +1: transposes of each other, conjugated.
    Index ``n // 2`` of every axis of the image is the origin. Plans hold the sorted points; they are made once and kept.
    """

    def __init__(self, shape: tuple[int, ...], points: list[Tensor], kind: torch.dtype, accuracy: float) -> None:
        self.shape, self.points, self.kind, self.accuracy = shape, points, kind, accuracy
        self.device, self.number = points[0].device, points[0].numel()
        self.lock = threading.Lock()
        self.plans: OrderedDict[tuple[int, int, int], Any] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Of every plan its grid and its sorted points (estimated)."""
        return len(self.plans) * (4 * self.kind.itemsize * math.prod(self.shape) + 16 * self.number)

    def _plan(self, type_: int, images: int) -> Any:
        work = images * (self.number + math.prod(self.shape))
        threads = min(torch.get_num_threads(), max(1, work // WORK))
        key = (type_, images, threads)
        if key in self.plans:
            self.plans.move_to_end(key)
            return self.plans[key]
        settings: dict[str, Any] = {}
        points: list[Any] = self.points
        if self.device.type == "cpu":
            oversampling = 1.25 if self.accuracy >= COARSE else 2.0
            settings = {"nthreads": threads, "upsampfac": oversampling, "showwarn": 0}
            points = [p.numpy() for p in points]
        plan = engine(self.device).Plan(
            type_,
            self.shape,
            images,
            self.accuracy,
            1 if type_ == 1 else -1,
            dtype=str(self.kind).removeprefix("torch."),
            **settings,
        )
        plan.setpts(*points)
        self.plans[key] = plan
        if len(self.plans) > PLANS:
            self.plans.popitem(last=False)
        return plan

    def execute(self, type_: int, values: Tensor) -> Tensor:
        """Transform ``(batch, ...)``, a few at a time."""
        results = []
        with self.lock:
            for part in torch.split(values, TOGETHER):
                plan = self._plan(type_, len(part))
                given: Any = part if len(part) > 1 else part[0]
                given = given.resolve_conj().contiguous()
                if self.device.type == "cpu":
                    result = torch.from_numpy(plan.execute(given.numpy()))
                else:
                    result = plan.execute(given)
                results.append(result if len(part) > 1 else result.unsqueeze(0))
        whole: Tensor = results[0] if len(results) == 1 else torch.cat(results)
        return whole


class SliceTransform:
    """The map of ``(batch, nx, ny)`` to ``(batch, views, bins)`` and its transpose; plans are made once and kept."""

    def __init__(self, rays: Rays, dtype: torch.dtype, device: torch.device, accuracy: float) -> None:
        engine(device)
        self.rays, self.dtype, self.device = rays, dtype, device
        self.kind = torch.complex64 if dtype == torch.float32 else torch.complex128
        self.accuracy = max(accuracy, SINGLE) if dtype == torch.float32 else accuracy
        self.transforms = self._lay()

    def _lay(self) -> Transforms:
        rays, h = self.rays, min(self.rays.spacing)
        at = rays.positions
        pitch = float(at[1] - at[0]) if len(at) > 1 else h
        self.every = max(1, math.ceil(pitch / h - 1e-9))
        fine = pitch / self.every
        box = [(low, low + n * d) for low, n, d in zip(rays.corner, rays.shape, rays.spacing, strict=True)]
        reach = math.hypot(*(max(abs(low), abs(high)) for low, high in box)) + float(np.abs(at).max())
        self.period = quick_size(max(math.ceil(reach / fine) + MARGIN, (len(at) - 1) * self.every + 1), 2)
        step = 2 * math.pi / (self.period * fine)
        count = min(self.period // 2, math.floor(math.pi / h / step + 1e-9)) + 1
        omega = step * np.arange(count)
        wx, wy = (omega * f(rays.angles)[:, None] for f in (np.cos, np.sin))
        inside = (np.abs(wx) * rays.spacing[0] <= math.pi + 1e-9) & (np.abs(wy) * rays.spacing[1] <= math.pi + 1e-9)
        middle = [low + (n // 2 + 0.5) * d for low, n, d in zip(rays.corner, rays.shape, rays.spacing, strict=True)]
        phase = np.exp(1j * (omega * at[0] - wx * middle[0] - wy * middle[1])) * inside
        phase *= rays.spacing[0] * rays.spacing[1] / fine
        self.phase = torch.from_numpy(phase).to(self.device, self.kind)
        weights = np.full(count, 2.0 / self.period)
        weights[0] = 1.0 / self.period
        if count == self.period // 2 + 1:
            weights[-1] = 1.0 / self.period
        self.back = self.phase.conj() * torch.from_numpy(weights).to(self.device, self.dtype)
        points = [
            torch.from_numpy((w * d * inside).ravel()).to(self.device, self.dtype)
            for w, d in zip((wx, wy), rays.spacing, strict=True)
        ]
        return Transforms(rays.shape, points, self.kind, self.accuracy)

    @property
    def plans(self) -> OrderedDict[tuple[int, int, int], Any]:
        """The plans that are kept."""
        return self.transforms.plans

    @property
    def nbytes(self) -> int:
        """Phases, points and the plans."""
        return 2 * self.phase.numel() * (self.kind.itemsize + self.dtype.itemsize) + self.transforms.nbytes

    def forward(self, images: Tensor) -> Tensor:
        """Line integrals ``(batch, views, bins)``."""
        spectrum = self.transforms.execute(2, images.to(self.kind)).reshape(len(images), *self.phase.shape)
        line: Tensor = torch.fft.irfft(spectrum * self.phase, n=self.period)
        return line[..., : self.every * len(self.rays.positions) : self.every].contiguous()

    def adjoint(self, data: Tensor) -> Tensor:
        """The transpose: images ``(batch, nx, ny)``."""
        line = data
        if self.every > 1:
            line = data.new_zeros(*data.shape[:-1], data.shape[-1] * self.every)
            line[..., :: self.every] = data
        line = line[..., : self.period]
        spectrum = torch.fft.rfft(line, n=self.period)[..., : self.phase.shape[1]] * self.back
        image: Tensor = self.transforms.execute(1, spectrum.reshape(len(data), -1)).real
        return image.contiguous()
