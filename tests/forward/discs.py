"""Voltages at a disc of radius 1 with a concentric disc of another conductivity in it, by series: gap and shunt electrodes.

With conductivity ``sigma`` outside of the radius ``rho`` and ``inner`` inside, a current density ``cos(k t)`` through the circle makes the potential
``cos(k t) (1 + B) / (k sigma (1 - B))`` there, ``B = rho^(2k) (sigma - inner) / (sigma + inner)``.

* gap: unit currents spread over arcs of half width ``w``, the mean over arcs read: every term has the factor ``(sin(k w) / (k w))^2``.
* shunt: on an arc, with ``s`` in [-1, 1] along it, the density is ``sum_n c_n T_n(s) / sqrt(1 - s^2)``, whose Fourier coefficients are Bessel functions
  ``pi i^n J_n(k w)``; the ``c_n`` make the potential the same all over each arc, in the weak sense (Galerkin). They fall exponentially with ``n``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.special import jv

from sciml.domains import Mesh, disc
from sciml.forward import Impedance, Spread, adjacent

RHO, INNER = 0.5, 5.0  # of the inclusion: radius and conductivity, 1 around it


def terms(sigma: float, inner: float, rho: float, count: int) -> np.ndarray:
    """Potential over current density of the waves ``k = 1, 2, ...``."""
    k = np.arange(1, count + 1)
    with np.errstate(under="ignore"):
        b = rho ** (2.0 * k) * (sigma - inner) / (sigma + inner)
    return (1 + b) / (k * sigma * (1 - b))


def gap(electrodes: int, coverage: float, sigma: float, inner: float, rho: float, count: int = 200_000) -> np.ndarray:
    """Resistances ``(electrodes, electrodes)``: potentials read for unit currents, up to a constant."""
    w = coverage * math.pi / electrodes
    k = np.arange(1, count + 1)
    weights = terms(sigma, inner, rho, count) * np.sinc(k * w / math.pi) ** 2 / math.pi
    row = np.array([(weights * np.cos(k * 2 * math.pi * d / electrodes)).sum() for d in range(electrodes)])
    return row[(np.arange(electrodes)[:, None] - np.arange(electrodes)[None]) % electrodes]


def shunt(
    electrodes: int, coverage: float, sigma: float, inner: float, rho: float, orders: int = 8, count: int = 200_000
) -> np.ndarray:
    """The same for electrodes without contact impedance."""
    w = coverage * math.pi / electrodes
    k = np.arange(1, count + 1)
    weights = terms(sigma, inner, rho, count) / math.pi
    waves = np.stack([jv(n, k * w) for n in range(orders)])
    blocks = np.zeros((electrodes, orders, orders))
    for d in range(electrodes):
        angle = k * 2 * math.pi * d / electrodes
        for n in range(orders):
            for m in range(orders):
                # <basis n on arc 0, potential of basis m on arc d>: the real part of i^(n - m) exp(i k angle)
                phase = np.cos(angle + (n - m) * math.pi / 2)
                blocks[d, n, m] = (weights * waves[n] * waves[m] * phase).sum()
    whole = np.zeros((electrodes * orders, electrodes * orders))
    for i in range(electrodes):
        for j in range(electrodes):
            whole[i * orders : (i + 1) * orders, j * orders : (j + 1) * orders] = blocks[(i - j) % electrodes]
    first = np.arange(electrodes) * orders
    rest = np.setdiff1d(np.arange(electrodes * orders), first)
    # Unit currents are the coefficients of T_0; the others see no potential.
    inside = np.linalg.solve(whole[np.ix_(rest, rest)], whole[np.ix_(rest, first)])
    return whole[np.ix_(first, first)] - whole[np.ix_(first, rest)] @ inside


def concentric(nodes: int, edge: float, electrodes: int) -> tuple[Mesh, torch.Tensor]:
    """A mesh with the interface among its edges, and the conductivity."""
    count = int(2 * math.pi * RHO / math.sqrt(2 * math.pi / nodes))
    angles = torch.arange(count, dtype=torch.float64) * 2 * math.pi / count
    ring = RHO * torch.stack((angles.cos(), angles.sin()), 1)
    mesh = disc(nodes=nodes, electrodes=electrodes, edge=edge, growth=0.35, through=ring)
    x, y = mesh.elements.points()
    sigma = torch.where(x.square() + y.square() < RHO**2, INNER, 1.0).to(torch.float64)
    return mesh, sigma.reshape(1, 1, -1)


def error(mesh: Mesh, sigma: torch.Tensor, model: Any, elements: Any, closed: np.ndarray) -> tuple[float, int]:
    """Relative error of all voltages between neighbours, and the number of unknowns."""
    count = len(closed)
    patterns = adjacent(count)
    forward = Impedance(mesh, model, patterns, patterns, image=Spread(mesh, mesh.elements.space()), elements=elements)
    wanted = patterns.T.numpy() @ closed @ patterns.numpy()
    found = forward(sigma)[0, 0].numpy()
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)), forward.system.count
