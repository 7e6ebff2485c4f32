r"""How strongly each coil sees each place: sensitivity maps from the fully sampled middle of k-space, or for simulations.

``low_resolution_maps`` divides every coil's image of the calibration block (apodised by Hann windows) by the root of their sum
of squares. ``espirit`` looks for the linear relations between neighbouring points of k-space and coils, and so needs no image
of its own: with the right singular vectors ``V`` above ``threshold`` of the matrix of all patches of the block (width ``kernel``
in every axis, all coils), every patch ``R_k y`` of the data meets ``V V^H R_k y = R_k y``. The sum over all ``k`` of
``R_k^H V V^H R_k`` is a convolution over k-space, at a place ``r`` of the image the matrix

    G_{cc'}(r) = \frac{1}{K} \sum_\delta W_{cc'}(\delta) e^{2 \pi \mathrm{i} \delta \cdot r / n}, \qquad W_{cc'}(\delta) = \sum_j (V V^H)_{(c,j),(c',j-\delta)},

``K`` the number of points of a patch: Hermitian, with eigenvalues from 0 to 1. Where there is signal the vector of
sensitivities is its eigenvector of eigenvalue one; where the largest eigenvalue is below ``crop`` the maps are zero.

Both take one member and give maps ``(coil, *shape)`` with sum of squares one (or zero), whose phase is that relative to the strongest virtual coil (the
first principal component of the block): the phase of the object stays in the image.

*Fails when* the block is small (fewer than about 16 points an axis for ESPIRiT: maps too smooth, crop too generous), or the field of
view is smaller than the object (places folded over have two sets of maps; only the first is found).

Uecker, Lai, Murphy, Virtue, Elad, Pauly, Vasanawala and Lustig, Magn. Reson. Med. 71, 2014, doi 10.1002/mrm.24751; McKenzie, Yeh, Ohliger,
Price and Sodickson, Magn. Reson. Med. 47, 2002, doi 10.1002/mrm.10087, for the first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.domains.errors import InputError
from sciml.domains.pixels import Pixels
from sciml.forward._coils import canonical_mask
from sciml.forward.fourier import Fourier

__all__ = ["birdcage_maps", "calibration_block", "espirit", "low_resolution_maps"]

AT_ONCE = 1 << 14  # pixels whose eigenvectors are sought together


def birdcage_maps(
    pixels: Pixels, coils: int = 8, *, radius: float = 1.8, dtype: torch.dtype = torch.complex128
) -> Tensor:
    """Simulated maps ``(1, coils, *shape)`` of loops around the box, with sum of squares one.

    Loop ``c`` stands at ``radius`` (in halves of the longest side, at least 1.5: outside of the box) and the angle ``2 pi c / coils`` in the plane of the first two axes; its field
    falls with the distance ``d`` like ``(1 + d^2)^(-3/2)``, that of a small loop on its axis, and turns with the angle under which
    it is seen. On one axis the loops stand along it; on three, every second one stands higher.
    """
    if coils < 1 or not 1.5 <= radius < math.inf:
        raise InputError(
            f"birdcage_maps: give at least one coil, not {coils}, and a radius outside of the box, not {radius}"
        )
    half = max(pixels.extent) / 2
    middles = [low + length / 2 for low, length in zip(pixels.corner, pixels.extent, strict=True)]
    at = [(p - m) / half for p, m in zip(pixels.points(), middles, strict=True)]
    at += [torch.zeros(pixels.shape, dtype=torch.float64)] * (3 - len(at))
    maps = []
    for c in range(coils):
        angle = 2 * math.pi * c / coils
        height = (0.5 if c % 2 else -0.5) if pixels.dim == 3 else 0.0
        dx, dy, dz = (
            p - q for p, q in zip(at, (radius * math.cos(angle), radius * math.sin(angle), height), strict=True)
        )
        size = (1 + dx.square() + dy.square() + dz.square()) ** -1.5
        turn = torch.atan2(-dy, -dx) - angle
        turn = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi  # loops look inwards: no jump within the box
        maps.append(torch.polar(size, turn))
    return _normalised(torch.stack(maps)).unsqueeze(0).to(dtype)


def calibration_block(sampled: Tensor, most: int = 24) -> tuple[slice, ...]:
    """The largest box around frequency zero that is sampled whole, at most ``most`` points an axis.

    ``sampled`` is boolean, of the shape of k-space. Grown one step at a time along every axis in turn.
    """
    shape = tuple(sampled.shape)
    low, high = [n // 2 for n in shape], [n // 2 for n in shape]
    growing = set(range(len(shape)))
    if not bool(sampled[tuple(n // 2 for n in shape)]):
        raise InputError("the middle of k-space was not sampled; give coil maps, or shift frequency zero to n // 2")
    while growing:
        for axis in sorted(growing):
            grown = False
            for side in (-1, 1):
                first, last = low[axis] + min(side, 0), high[axis] + max(side, 0)
                if first < 0 or last >= shape[axis] or last - first + 1 > most:
                    continue
                box = [slice(a, b + 1) for a, b in zip(low, high, strict=True)]
                box[axis] = slice(first, last + 1)
                if bool(sampled[tuple(box)].all()):
                    low[axis], high[axis], grown = first, last, True
            if not grown:
                growing.discard(axis)
    return tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))


def low_resolution_maps(
    kspace: Tensor, mask: Tensor | None = None, *, calibration: int = 24, floor: float = 0.02
) -> Tensor:
    """Maps ``(coil, *shape)`` from ``kspace (coil, *k)`` by dividing images of low resolution.

    They are zero where the root of the sum of squares is below ``floor`` times its largest value. ``mask`` is where k-space was
    sampled, of its shape without coils; None: where it is not zero.
    """
    one = _checked(kspace)
    block = calibration_block(_sampled(one, mask), calibration)
    window = torch.ones((), dtype=one.real.dtype, device=one.device)
    for cut, n in zip(block, one.shape[1:], strict=True):
        width = cut.stop - cut.start
        at = torch.arange(cut.start, cut.stop, dtype=one.real.dtype, device=one.device) - n // 2
        window = window.unsqueeze(-1) * (0.5 + 0.5 * (2 * math.pi * at / (width + 1)).cos())
    low = torch.zeros_like(one)
    low[(slice(None), *block)] = one[(slice(None), *block)] * window
    images = _inverse(low)
    size = torch.linalg.vector_norm(images, dim=0)
    seen = size > floor * size.max()
    return torch.where(seen, _normalised(_unphased(images, one[(slice(None), *block)])), torch.zeros_like(images))


def espirit(
    kspace: Tensor,
    mask: Tensor | None = None,
    *,
    calibration: int = 24,
    kernel: int = 6,
    threshold: float = 0.02,
    crop: float = 0.9,
) -> Tensor:
    """Maps ``(coil, *shape)`` from ``kspace (coil, *k)``, by ESPIRiT as the top of this file says. ``mask`` as above.

    Raises InputError for real data, a middle that was not sampled, and a block too small for patches of ``kernel`` points.
    """
    if kernel < 2 or not 0 < threshold < 1 or not 0 <= crop < 1:
        raise InputError(
            f"espirit: kernel {kernel} must be at least 2, threshold {threshold} and crop {crop} between 0 and 1"
        )
    one = _checked(kspace)
    block = calibration_block(_sampled(one, mask), calibration)
    middle = one[(slice(None), *block)]
    coils, sizes = len(one), tuple(one.shape[1:])
    widths = tuple(min(kernel, n) for n in sizes)
    places = math.prod(n - w + 1 for n, w in zip(middle.shape[1:], widths, strict=True))
    if any(n < w for n, w in zip(middle.shape[1:], widths, strict=True)) or places < 4:
        raise InputError(
            f"espirit: only a block of {tuple(middle.shape[1:])} points was sampled whole, too few for patches of {kernel}; use low_resolution_maps(kspace), or give coil maps"
        )
    if not bool(middle.any()):
        raise InputError("espirit: the middle of k-space is zero; there is nothing to calibrate with")
    patches = middle
    for axis, w in enumerate(widths):
        patches = patches.unfold(1 + axis, w, 1)
    dim = len(sizes)
    rows = patches.movedim(0, dim).reshape(-1, coils * math.prod(widths))
    # Right singular vectors from the Gram matrix: it is small, and only values above a threshold are kept.
    squares, vectors = torch.linalg.eigh(rows.mH @ rows)
    kept = vectors[:, squares > threshold**2 * squares[-1]]
    parts = kept.reshape(coils, *widths, -1)
    # Rows obey y^T conj(v): W(delta) is the correlation of conj(V) with itself over the patch, summed over the vectors.
    double = [2 * w - 1 for w in widths]
    axes = tuple(range(1, dim + 1))
    spectra = torch.fft.fftn(parts.conj(), s=double, dim=axes)
    products = torch.einsum("c...k,d...k->cd...", spectra, spectra.conj())
    relation = torch.fft.fftshift(
        torch.fft.ifftn(products, dim=tuple(a + 1 for a in axes)), dim=tuple(a + 1 for a in axes)
    )
    waves = [_waves(n, w, one) / w for n, w in zip(sizes, widths, strict=True)]
    rows_at_once = max(1, AT_ONCE // math.prod(sizes[1:]))
    slabs = []
    for wave in torch.split(waves[0], rows_at_once):
        # (c, d, delta, ...) to (c, d, r, ...), one axis after the other; few deltas, so that no FFT is needed.
        matrices = relation
        for turning in (wave, *waves[1:]):  # the axis that is done goes to the end
            matrices = torch.tensordot(matrices, turning, ([2], [1]))
        values, found = torch.linalg.eigh(matrices.flatten(2).permute(2, 0, 1))
        slabs.append(torch.where(values[:, -1:] >= crop, found[..., -1], torch.zeros_like(found[..., -1])))
    maps = torch.cat(slabs)
    return _unphased(maps.mT.reshape(coils, *sizes), middle)


def _waves(n: int, width: int, like: Tensor) -> Tensor:
    """``exp(2 pi i delta (r - n // 2) / n)`` for ``delta`` from ``1 - width`` to ``width - 1``, ``(r, delta)``."""
    at = torch.arange(n, device=like.device) - n // 2
    delta = torch.arange(1 - width, width, device=like.device)
    angle = (at[:, None] * delta).to(torch.float64) * (2 * math.pi / n)
    return torch.complex(angle.cos(), angle.sin()).to(like.dtype)


def _checked(kspace: Tensor) -> Tensor:
    if not isinstance(kspace, Tensor) or not kspace.is_complex():
        raise InputError("k-space is a complex tensor (coil, *k); make it complex before maps are estimated")
    if not 2 <= kspace.ndim <= 4:
        raise InputError(f"k-space has shape {tuple(kspace.shape)}; give (coil, *k), one member at a time")
    if not bool(torch.isfinite(kspace).all()):
        raise InputError("k-space is not finite everywhere; set what was not measured to zero")
    return kspace


def _sampled(one: Tensor, mask: Tensor | None) -> Tensor:
    found = canonical_mask("coil maps", mask, Pixels(tuple(one.shape[1:])))
    return (one != 0).any(0) if found is None else found.to(one.device)


def _inverse(kspace: Tensor) -> Tensor:
    """The centred orthonormal inverse transform of every channel."""
    sizes = tuple(kspace.shape[1:])
    plane = Fourier(Pixels(sizes), torch.ones((1, *sizes), dtype=kspace.dtype, device=kspace.device))
    return plane.adjoint(kspace.flatten(1).unsqueeze(1))[:, 0]


def _normalised(maps: Tensor) -> Tensor:
    """Sum of squares one over the coils, or zero."""
    size = torch.linalg.vector_norm(maps, dim=0)
    return maps / torch.where(size > 0, size, torch.ones_like(size))


def _unphased(maps: Tensor, middle: Tensor) -> Tensor:
    """The maps with the phase of the strongest virtual coil taken out."""
    flat = middle.flatten(1)
    strongest = torch.linalg.eigh(flat @ flat.mH)[1][:, -1]
    virtual = torch.einsum("c,c...->...", strongest.conj(), maps)
    size = virtual.abs()
    turn = torch.where(
        size > 0, virtual.conj() / torch.where(size > 0, size, torch.ones_like(size)), torch.ones_like(virtual)
    )
    return (maps * turn).contiguous()


def example() -> Tensor:
    """Maps of four loops around a small uneven box."""
    return birdcage_maps(Pixels((9, 14), (1.0, 2.0)), 4)
