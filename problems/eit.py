"""Electrical impedance tomography: the conductivity of a body in the plane from voltages at its electrodes.

The unknown is the logarithm of the conductivity over that of the background, at the nodes of a mesh; the complete electrode model relates it to the
voltages, on a finer mesh that is graded towards the ends of the electrodes.

Without ``data`` a disc of radius 1 with ``electrodes`` electrodes on half of its rim is simulated, on a mesh of its own with more than twice the nodes
of the one that is inverted on: one to three random ellipses, 2 to 5 times as conductive as the background or as little, currents and voltages between
neighbours. The noise is white with the standard deviation ``noise |V| + 0.02 noise max|V|``, ``V`` the voltages of the background. ``batch=B`` draws bodies; member
``i`` depends on ``seed`` and ``i`` alone.

With ``data``, a measurement as the readers give it (``voltage``, ``current_pattern``, ``voltage_pattern``) or its file, and ``reference``, the same tank
without inclusions: the reference gives the conductivity of the background and a contact impedance (least squares, after the offset that every
voltage channel has in common over all injections is taken out; a tenth of it counts as noise), and the voltages that are fitted are ``V(background) + data - reference``, in which what the
model gets wrong about the tank cancels. Voltages that are not numbers in either are left out. ``noise`` then stands for the model's errors too. ``radius`` (in the
unit of the mesh), ``first`` (angle of the first electrode, counterclockwise from the x axis) and ``coverage`` are needed where the file does not tell them.
With currents in mA the conductivity is in mS, of a layer as thick as the tank is deep.

The prior is total variation at the weight ``weight / radius``; None leaves the weight to Discrepancy. *Fails when* the electrodes moved between data and
reference, or a body is not well described by a plane. Reference: Cheney, Isaacson and Newell, SIAM Rev. 41, 1999, doi 10.1137/S0036144598333613; the measured
data are those of the Kuopio Tomography Challenge 2023, doi 10.5281/zenodo.8252370.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Tensor

import sciml
from sciml.core import GaussianNoise, Inverse
from sciml.domains import InputError, disc, member_generator
from sciml.forward import CompleteElectrodes, Impedance, Logarithm, Spread, adjacent
from sciml.priors import TotalVariation
from sciml.solvers import Discrepancy, GaussNewton, PrimalDual, PrimalDualNewton

CONTACT = 0.02  # of the simulated electrodes, in units of radius over conductivity
NOISE = (0.005, 0.025)  # simulated, measured
FLOOR = 0.02
DRIFT = 0.1  # of the offset of a voltage channel, from one measurement to the next


def problem(
    *,
    data: Any = None,
    reference: Any = None,
    electrodes: int = 16,
    nodes: int = 1200,
    noise: float | None = None,
    weight: float | None = 10.0,
    radius: float | None = None,
    first: float | None = None,
    coverage: float = 0.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """A simulated body, or the measurement ``data`` of a tank with ``reference``, the empty one; ``nodes`` is the size of the image."""
    if noise is not None and not 0 < noise < math.inf:
        raise InputError(f"noise is {noise}; it is relative to the voltages and positive, such as 0.01")
    if weight is not None and not 0 < weight < math.inf:
        raise InputError(f"weight is {weight}; it is positive, or None for Discrepancy")
    if data is None and reference is None:
        return draw(
            1, electrodes=electrodes, nodes=nodes, noise=noise, weight=weight, coverage=coverage, seed=seed, dtype=dtype
        )
    if data is None or reference is None:
        raise InputError("measured data need data= and reference=, the same tank without inclusions; give both")
    return measured(opened(data), opened(reference), nodes, noise, weight, radius, first, coverage, dtype)


def draw(
    count: int,
    *,
    seed: int = 0,
    electrodes: int = 16,
    nodes: int = 1200,
    noise: float | None = None,
    weight: float | None = 10.0,
    coverage: float = 0.5,
    dtype: torch.dtype = torch.float64,
) -> Inverse:
    """``count`` random bodies."""
    for name, value, least in (("count", count, 1), ("electrodes", electrodes, 4), ("nodes", nodes, 50)):
        if not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}; give a whole number of at least {least}")
    level = NOISE[0] if noise is None else noise
    currents = adjacent(electrodes)
    fine = disc(nodes=3 * nodes, electrodes=electrodes, coverage=coverage, edge=0.1, growth=0.2)
    behind = Impedance(fine, CompleteElectrodes(CONTACT), currents, image=Spread(fine, fine.elements.space()))
    forward = model(1.0, nodes, electrodes, coverage, 0.0, CONTACT, 1.0, currents, None, dtype)
    bodies = [inclusions(member_generator(seed, i, "body")) for i in range(count)]
    clean = behind(torch.cat([values(body, fine.elements.points()).exp().reshape(1, 1, -1) for body in bodies]))
    sigma = deviation(behind(torch.ones(1, 1, len(fine.triangles), dtype=torch.float64)), level)
    noisy = [
        GaussianNoise(sigma).sample(clean[i : i + 1], generator=member_generator(seed, i, "noise"))
        for i in range(count)
    ]
    coarse: Any = forward.space.domain
    truth = torch.cat([values(body, coarse.points()).reshape(1, 1, -1) for body in bodies])
    return Inverse(
        "eit", forward, torch.cat(noisy).to(dtype), GaussianNoise(sigma.to(dtype)), TotalVariation(), weight, truth.to(dtype),
        unknown="log conductivity",
    )  # fmt: skip


def solver(problem: Inverse) -> Any:
    """The primal-dual Newton method for total variation, Gauss-Newton for smooth priors or none; the weight by the discrepancy, if none is posed."""
    if problem.prior is None:
        return GaussNewton()
    for inner in (PrimalDualNewton(), GaussNewton(), PrimalDual()):
        chosen: Any = Discrepancy(inner) if problem.weight is None else inner
        if chosen.accepts(problem) is None:
            return chosen
    return PrimalDual()


def model(
    radius: float,
    nodes: int,
    electrodes: int,
    coverage: float,
    first: float,
    contact: float,
    background: float,
    currents: Tensor,
    voltages: Tensor | None,
    dtype: torch.dtype,
) -> Impedance:
    """The logarithm of the conductivity over the background's, on an image mesh, to voltages by a finer mesh."""
    mesh = disc(radius, nodes=2 * nodes, electrodes=electrodes, coverage=coverage, first=first, edge=0.2, growth=0.25)
    image = disc(radius, nodes=nodes)
    return Impedance(
        mesh,
        CompleteElectrodes(torch.tensor(contact, dtype=dtype)),
        currents.to(dtype),
        None if voltages is None else voltages.to(dtype),
        image=Spread(mesh, image.space(1, dtype)),
        chart=Logarithm(background),
    )


def deviation(voltages: Tensor, level: float) -> Tensor:
    """The standard deviation of the noise, from the voltages of the background."""
    size = voltages.abs()
    return level * (size + FLOOR * size.max())


def opened(source: Any) -> Any:
    """A data set, also from a path."""
    return sciml.open_dataset(source) if isinstance(source, str | os.PathLike) else source


def measured(
    data: Any,
    reference: Any,
    nodes: int,
    noise: float | None,
    weight: float | None,
    radius: float | None,
    first: float | None,
    coverage: float,
    dtype: torch.dtype,
) -> Inverse:
    """The difference of two measurements of one tank, added to the voltages of the model of the empty one."""
    currents, voltages, y = read(data, "data")
    others, patterns, y0 = read(reference, "reference")
    same = currents.shape == others.shape and voltages.shape == patterns.shape
    if (
        not same
        or float((currents - others).abs().max()) > 1e-3 * float(currents.abs().max())
        or not torch.equal(voltages, patterns)
    ):
        raise InputError(
            "data and reference were measured with other currents or voltage patterns; give the reference of the same measurement"
        )
    told = {**reference.attrs, **data.attrs}
    size = told.get("radius") if radius is None else radius
    if first is None and "electrode_angle" in data.coords:
        angles = torch.as_tensor(data["electrode_angle"].values).to(torch.float64)
        first, step = float(angles[0]), 2 * math.pi / len(angles)
        off = [math.remainder(float(a) - first - i * step, 2 * math.pi) for i, a in enumerate(angles)]
        if not all(abs(a) < 0.05 * step for a in off):
            turned = [math.remainder(float(a) - first + i * step, 2 * math.pi) for i, a in enumerate(angles)]
            if all(abs(a) < 0.05 * step for a in turned):
                raise InputError(
                    "the electrodes are numbered clockwise; reverse their order in the patterns, and electrode_angle"
                )
            raise InputError(
                "electrode_angle (in radians) is not spaced evenly around the tank; eit models equal electrodes at equal distances"
            )
    if size is None or first is None:
        raise InputError(
            "the file does not tell where the electrodes are; give radius= of the tank, first= (the angle of electrode 0) and coverage= (the part of the wall under electrodes)"
        )
    size, count = float(size), len(currents)
    if radius is None and "electrode_width" in told:
        coverage = count * float(told["electrode_width"]) / (2 * math.pi * size)
    seen = torch.isfinite(y) & torch.isfinite(y0)
    if not bool(seen.any()):
        raise InputError("no voltage is a number in both data and reference; nothing is left to reconstruct from")
    background, contact, offset = calibrated(y0, size, nodes, count, coverage, first, currents, voltages)
    forward = model(size, nodes, count, coverage, first, contact, background, currents, voltages, dtype)
    empty = forward(forward.space.zeros())[0, 0].to(torch.float64)
    sigma = deviation(empty, NOISE[1] if noise is None else noise) + DRIFT * offset.abs()
    fitted = torch.where(seen, y - y0 + empty, torch.zeros_like(y))
    law = GaussianNoise(sigma.to(dtype)[None, None], None if bool(seen.all()) else seen[None, None])
    name = str(data.attrs.get("source", "eit"))
    return Inverse(
        name, forward, fitted.to(dtype)[None, None], law, TotalVariation(), None if weight is None else weight / size,
        unknown="log conductivity",
    )  # fmt: skip


def read(data: Any, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """Currents in mA ``(electrode, injection)``, voltage patterns ``(electrode, measurement)`` and voltages ``(injection, measurement)``."""
    axes = {
        "current_pattern": ("injection", "electrode"),
        "voltage_pattern": ("measurement", "electrode"),
        "voltage": ("injection", "measurement"),
    }
    missing = [name for name in axes if name not in getattr(data, "variables", ())]
    if missing:
        raise InputError(
            f"{what} has no {missing[0]}; give a measurement of voltages with its patterns, or say with names= what they are called"
        )
    for name, wanted in axes.items():
        if set(data[name].dims) != set(wanted):
            raise InputError(
                f"{name} of {what} has the axes {', '.join(map(str, data[name].dims))}; eit needs {' and '.join(wanted)} (rename them with .rename)"
            )
    tensors = [torch.as_tensor(data[name].transpose(*axes[name]).values).to(torch.float64) for name in axes]
    unit = str(data["current_pattern"].attrs.get("units", "mA"))
    scale = {"A": 1e3, "mA": 1.0, "uA": 1e-3}.get(unit)
    if scale is None:
        raise InputError(f"the currents of {what} are in {unit!r}; set their units to A, mA or uA")
    return tensors[0].T * scale, tensors[1].T.contiguous(), tensors[2]


def calibrated(
    y: Tensor, radius: float, nodes: int, count: int, coverage: float, first: float, currents: Tensor, voltages: Tensor
) -> tuple[float, float, Tensor]:
    """Conductivity and contact impedance of the empty tank, and the offsets of the channels: least squares, each voltage channel with an offset of its own.

    Voltages of conductivity ``s`` and impedance ``z`` are those of 1 and ``z s`` over ``s``: a search over ``z s`` alone, by golden section.
    """
    mesh = disc(radius, nodes=2 * nodes, electrodes=count, coverage=coverage, first=first, edge=0.2, growth=0.25)
    ones = torch.ones(1, 1, len(mesh.triangles), dtype=torch.float64)
    seen = torch.isfinite(y)
    number = seen.sum(0).clamp_min(1)

    def centred(v: Tensor) -> Tensor:
        kept = torch.where(seen, v, torch.zeros_like(v))
        return torch.where(seen, kept - kept.sum(0) / number, torch.zeros_like(v))

    wanted = centred(y)

    def voltage(logarithm: float) -> Tensor:
        plates = CompleteElectrodes(radius * 10**logarithm)
        return Impedance(mesh, plates, currents, voltages, image=Spread(mesh, mesh.elements.space()))(ones)[0, 0]

    def fit(logarithm: float) -> tuple[float, float]:
        v = centred(voltage(logarithm))
        over = float((v * wanted).sum() / v.square().sum())
        return float((over * v - wanted).square().sum()), over

    low, high, golden = -5.0, 0.0, (math.sqrt(5) - 1) / 2
    for _ in range(12):
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, b) if fit(a)[0] <= fit(b)[0] else (a, high)
    best = (low + high) / 2
    over = fit(best)[1]
    if not over > 0:
        raise InputError(
            "the reference does not look like currents through a tank: its voltages have the wrong sign; turn the sign of one"
        )
    rest = torch.where(seen, y - over * voltage(best), torch.zeros_like(y)).sum(0) / number
    return 1 / over, radius * 10**best * over, rest


def inclusions(draws: torch.Generator) -> list[tuple[float, ...]]:
    """One to three ellipses apart from each other: centre, semi-axes, angle, logarithm of the contrast."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=draws, dtype=torch.float64))

    found: list[tuple[float, ...]] = []
    for _ in range(1 + int(torch.randint(3, (), generator=draws))):
        for _ in range(20):
            radius, angle = 0.65 * math.sqrt(uniform(0, 1)), uniform(0, 2 * math.pi)
            a, b = uniform(0.15, 0.28), uniform(0.15, 0.28)
            x, y = radius * math.cos(angle), radius * math.sin(angle)
            if all(math.hypot(x - other[0], y - other[1]) > max(a, b) + max(other[2:4]) + 0.1 for other in found):
                sign = 1.0 if uniform(0, 1) < 0.5 else -1.0
                found.append((x, y, a, b, uniform(0, math.pi), sign * math.log(uniform(2.0, 5.0))))
                break
    return found


def values(ellipses: list[tuple[float, ...]], points: tuple[Tensor, Tensor]) -> Tensor:
    """The logarithm of the conductivity at points."""
    x, y = points
    found = torch.zeros_like(x)
    for cx, cy, a, b, angle, contrast in ellipses:
        u = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
        v = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
        found = torch.where((u / a).square() + (v / b).square() <= 1, torch.full_like(x, contrast), found)
    return found
