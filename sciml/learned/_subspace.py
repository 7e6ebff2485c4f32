r"""Proper orthogonal decomposition and discrete empirical interpolation.

The first ``r`` modes ``V`` of snapshots ``s_i`` with shares ``c_i`` minimise ``sum_i c_i |s_i - V V^T W s_i|_W^2`` over all subspaces of
dimension ``r``; the minimum is ``sum_(j>r) sigma_j^2`` (Sirovich, Quart. Appl. Math. 45, 1987, doi 10.1090/qam/910462).

Interpolation in ``m`` functions ``U`` at ``m`` points chosen one after the other where the previous ones interpolate the next worst:
``f ~ U (P^T U)^-1 P^T f``, exact on the span of ``U`` (Chaturantabut and Sorensen, SIAM J. Sci. Comput. 32, 2010, doi
10.1137/090766498).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["interpolation_points", "proper_modes"]


def proper_modes(snapshots: Tensor, weights: Tensor, shares: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``(modes (r, n), singular values (r,))`` of snapshots ``(N, n)``, orthonormal in ``sum_i weights_i u_i v_i``.

    ``shares`` ``(N,)`` weigh the snapshots (None: one each). Signs are fixed: the largest entry of a mode is positive.
    Raises InputError where the snapshots are not finite or all zero.
    """
    if not bool(torch.isfinite(snapshots).all()):
        raise InputError("the snapshots are not finite; leave out the members that failed")
    root = weights.sqrt()
    scaled = snapshots * root
    if shares is not None:
        scaled = scaled * shares.sqrt().unsqueeze(1)
    _, values, right = torch.linalg.svd(scaled, full_matrices=False)
    if not float(values[0]) > 0:
        raise InputError("the snapshots are all zero; there is no mode to take from them")
    kept = values > 1e-13 * values[0]
    modes = right[kept]
    largest = modes.gather(1, modes.abs().argmax(1, keepdim=True))
    return modes * largest.sign() / root, values[kept]


def interpolation_points(functions: Tensor) -> Tensor:
    """Indices ``(m,)`` at which the functions ``(m, n)`` are interpolated, one for each, all different."""
    first = int(functions[0].abs().argmax())
    points = [first]
    for j in range(1, len(functions)):
        before = functions[:j]
        c = torch.linalg.solve(before[:, points].T, functions[j, points])
        points.append(int((functions[j] - c @ before).abs().argmax()))
    return torch.tensor(points, dtype=torch.int64)
