"""The mri problem: simulated and measured scans, their noise, their maps, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sciml
from sciml.core import Inverse
from sciml.domains import InputError
from sciml.forward import Equispaced, Fourier, PoissonDisc
from sciml.metrics import psnr
from sciml.priors import TotalVariation, Wavelet
from sciml.solvers import Discrepancy, LeastSquares, PrimalDual

SMALL: dict[str, Any] = {"n": 40, "coils": 4}
REAL = os.environ.get("SCIML_REAL_DATA")
needs_data = pytest.mark.skipif(REAL is None, reason="SCIML_REAL_DATA is not set")


def scan(**settings: Any) -> Inverse:
    found = sciml.problem("mri", **{**SMALL, **settings})
    assert isinstance(found, Inverse)
    return found


def whole(problem: Inverse) -> Tensor:
    """The k-space of a problem, zeros where it was not sampled."""
    assert isinstance(problem.forward, Fourier)
    return problem.forward.zero_filled(problem.data)


def test_the_truth_explains_the_data_and_others_do_not() -> None:
    problem = scan(finer=1)
    assert problem.truth is not None and problem.data.is_complex() and problem.truth.is_complex()
    dof = float(problem.noise.dof(problem.data))
    assert dof == 2 * problem.data.numel()  # real numbers that were measured
    assert abs(float(problem.misfit(problem.truth)) - 1) < 4 * (2 / dof) ** 0.5  # four standard deviations
    for other in (problem.truth.conj(), problem.truth.roll(1, -1), problem.truth.abs().to(problem.truth.dtype)):
        assert float(problem.misfit(other)) > 1.5


def test_finer_pixels_are_another_model_but_hardly_another_scan() -> None:
    same, finer = scan(finer=1, sigma=1e-6), scan(finer=3, sigma=1e-6)
    apart = float(torch.linalg.vector_norm(same.data - finer.data) / torch.linalg.vector_norm(same.data))
    assert 1e-3 < apart < 0.1  # edges of ellipses within pixels; a half pixel's shift would make 0.2 and more


def test_members_depend_on_seed_and_index_alone_and_twice_is_the_same() -> None:
    few, many = (sciml.problem("mri", batch=b, seed=3, **SMALL) for b in (2, 3))
    assert torch.equal(few.data, many.data[:2]) and torch.equal(few.truth, many.truth[:2])
    assert not torch.equal(few.data[0], few.data[1])
    assert torch.equal(sciml.problem("mri", batch=2, seed=3, **SMALL).data, few.data)
    assert not torch.equal(sciml.problem("mri", batch=2, seed=4, **SMALL).data, few.data)


def test_recommended_solvers_certify_and_beat_zero_filling() -> None:
    problem = scan(n=48, coils=6)
    assert isinstance(problem.recommend(problem), Discrepancy)
    assert isinstance(problem.recommend(problem.with_prior(None)), LeastSquares)
    zero_filled = problem.forward.linearise(problem.truth).adjoint(problem.data)
    least = sciml.solve(problem.with_prior(None))
    smooth = sciml.solve(problem.with_weight(300.0).with_target(optimality=1e-2), PrimalDual())
    assert least.ok and smooth.ok
    quality = [float(psnr(x, problem.truth)) for x in (zero_filled, least.value, smooth.value)]
    assert quality[0] + 1 < quality[1] and quality[1] + 3 < quality[2]


@pytest.mark.filterwarnings("ignore:BUDGET")
@pytest.mark.parametrize("prior", [None, TotalVariation(), Wavelet()], ids=lambda p: type(p).__name__)
def test_a_batch_is_the_stack_of_its_members(prior: Any) -> None:
    problem = sciml.problem("mri", batch=2, **SMALL).with_prior(prior, None if prior is None else 20.0)
    solver = LeastSquares() if prior is None else PrimalDual(max_steps=30)
    together = sciml.solve(problem, solver, strict=False).value
    for i in range(2):
        alone = sciml.solve(problem.member(i), solver, strict=False).value
        assert torch.allclose(together[i : i + 1], alone, atol=1e-9)


@pytest.mark.filterwarnings("ignore:BUDGET")
@pytest.mark.parametrize("prior", [TotalVariation(), Wavelet()], ids=lambda p: type(p).__name__)
def test_the_unit_of_the_data_does_not_matter(prior: Any) -> None:
    """Data and sigma times c, the weight over c: the image times c."""
    problem, c = scan().with_prior(prior, 20.0), 2.0**20
    import dataclasses

    from sciml.core import GaussianNoise

    other = dataclasses.replace(
        problem, data=c * problem.data, noise=GaussianNoise(c * 0.02), weight=20.0 / c, truth=None, recipe=None
    )
    one, two = (sciml.solve(p, PrimalDual(max_steps=40), strict=False).value for p in (problem, other))
    assert torch.allclose(two / c, one, rtol=1e-9, atol=1e-9)


def test_measured_k_space_gives_the_image_back() -> None:
    """Maps and noise estimated from a simulated scan; masks from where it is not zero."""
    made = scan(n=64, coils=6, sigma=0.1)
    problem = sciml.problem("mri", kspace=whole(made)[0])
    assert isinstance(made.forward, Fourier) and torch.equal(problem.forward.mask, made.forward.mask)
    # The rim of so small a phantom is not noise alone, and the median of 50 samples is known to a tenth.
    assert torch.allclose(problem.noise.sigma, torch.tensor(0.1, dtype=torch.float64), rtol=0.25)
    assert problem.noise.sigma.shape == (1, 6, 1)
    known = sciml.problem("mri", kspace=whole(made), mask=made.forward.mask, maps=made.forward.maps, sigma=0.1)
    assert torch.equal(known.data, made.data) and torch.equal(known.forward.maps, made.forward.maps)
    image = sciml.solve(problem.with_prior(None), strict=False).value
    wanted = sciml.solve(known.with_prior(None), strict=False).value
    inside = made.truth.abs() > 0.1
    assert float((image.abs() - wanted.abs())[inside].abs().mean()) < 0.1  # of an image that goes up to 1


def test_numpy_single_precision_one_coil_lines_and_batches() -> None:
    made = scan(n=48, sampling=Equispaced(3.0, 12))
    k = whole(made)[0].numpy().astype(np.complex64)
    problem = sciml.problem("mri", kspace=k, dtype="float32")
    assert problem.data.dtype == torch.complex64 and problem.space.dtype == torch.complex64
    one = sciml.problem("mri", kspace=k[:1])
    assert bool((one.forward.maps == 1).all())
    two = sciml.problem("mri", kspace=np.stack([k, 2 * k]))
    assert two.batch == 2 and two.forward.maps.shape == (2, 4, 48, 48)
    assert torch.allclose(two.forward.maps[0], two.forward.maps[1], atol=1e-6)


def test_a_data_set_with_axes_in_any_order() -> None:
    import xarray

    made = scan(n=48)
    k = whole(made)[0].numpy()
    mask = made.forward.mask.numpy()
    attributes = {"encoded_matrix": [48, 48, 1], "encoded_field_of_view": [240.0, 192.0, 5.0]}
    data = xarray.Dataset(
        {"kspace": (("slice", "ky", "kx", "coil"), np.stack([0 * k, k]).transpose(0, 2, 3, 1))}, attrs=attributes
    )
    data["mask"] = (("ky", "kx"), mask)
    problem = sciml.problem("mri", data=data, slice=1)
    assert torch.equal(problem.data, made.data)
    assert problem.space.domain.unit == "mm" and problem.space.domain.spacing == (4.0, 5.0)  # ky, kx
    for bad, words in (
        (data.rename(kspace="k"), "'kspace'"),
        (data.isel(slice=1), None),
        (data.expand_dims(contrast=2, echo=2), "pick one of contrast"),
        (data.expand_dims(repetition=2).drop_vars("mask"), "pick one of repetition"),  # no third axis of k-space
        (data.assign(trajectory=(("kx", "component"), np.zeros((48, 2)))), "along a trajectory"),
    ):
        if words is None:
            assert torch.equal(sciml.problem("mri", data=bad).data, made.data)
        else:
            with pytest.raises(InputError, match=words):
                sciml.problem("mri", data=bad)
    with pytest.raises(InputError, match="2 slices"):
        sciml.problem("mri", data=data, slice=2)


def with_nan(k: Tensor) -> Tensor:
    bad = k.clone()
    bad[:, 2, 20, 21] = float("nan")
    return bad


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (lambda k: {"kspace": k.real}, "real"),
        (lambda k: {"kspace": k[0, 0, 0]}, "shape"),
        (lambda k: {"kspace": 0 * k}, "zero everywhere"),
        (lambda k: {"kspace": k, "mask": torch.zeros(40, 40)}, "samples nothing"),
        (lambda k: {"kspace": k, "mask": torch.ones(39, 40)}, r"\(39, 40\)"),
        (lambda k: {"kspace": with_nan(k)}, r"coil 2, index \(20, 21\)"),
        (lambda k: {"kspace": k, "maps": 0 * k}, "vanish"),
        (lambda k: {"kspace": k, "maps": k[:, :2]}, "maps have shape"),
        (lambda k: {"kspace": k, "maps": k.real}, "real"),
        (lambda k: {"kspace": k, "sigma": torch.ones(k.shape[1])}, "1\\) for the coils"),
        (lambda k: {"kspace": torch.cat([k, k.roll(1, -1)])}, "different points"),
        (lambda k: {"kspace": "k.npy"}, "makes no tensor"),
        (lambda k: {"kspace": k, "data": k}, "not both"),
        (lambda k: {"data": k}, "data set"),
        (lambda k: {"kspace": k, "batch": 2}, "not drawn"),
        (lambda k: {"sigma": -1.0}, "positive"),
        (lambda k: {"n": 40, "sampling": PoissonDisc}, "sampling"),
        (lambda k: {"n": 40, "acceleration": 1000.0}, "calibration"),
        (lambda k: {"n": 40, "maps": k}, "coils="),
        (lambda k: {"n": 40, "finer": 0}, "finer"),
    ],
)
def test_refusals(settings: Any, words: str) -> None:
    k = whole(scan())
    with pytest.raises(InputError, match=words) as caught:
        sciml.problem("mri", **settings(k))
    assert str(caught.value).count(". ") == 0


def test_a_real_or_bounded_prior_meets_complex_images_in_one_sentence() -> None:
    from sciml.priors import Gaussian

    for prior, words in ((TotalVariation(lower=0.0), "no lower or upper bound"), (Gaussian(), "complex")):
        with pytest.raises(InputError, match=words):
            scan().with_prior(prior)


@needs_data
def test_measured_brain() -> None:
    """Eight coils, eight times undersampled: no fold-over of the zero-filled image survives least squares."""
    problem = sciml.problem("mri", data=str(Path(str(REAL)) / "mri_kspace" / "cartesian_ksp.npy"), dtype="float32")
    assert problem.space.shape == (1, 230, 180) and problem.data.shape == (1, 8, 5148)
    assert 0.005 < float(problem.noise.sigma.min()) and float(problem.noise.sigma.max()) < 0.02
    solution = sciml.solve(problem.with_prior(None))
    assert solution.ok
    image = solution.value.abs()[0, 0]
    corner, head = image[:20, :20].mean(), image[90:140, 60:120].mean()
    assert float(corner) < 0.1 * float(head)


def test_other_orders_of_k_space_are_told() -> None:
    """Frequency zero in the corner, coils last, one coil without its axis."""
    k = np.fft.fft2(np.ones((1, 12, 10)) + np.random.default_rng(0).random((1, 12, 10)))
    centred = np.fft.fftshift(k, axes=(1, 2))
    sciml.problem("mri", kspace=centred, sigma=0.1)  # without a word
    with pytest.warns(UserWarning, match=r"corner, index \(0, 0\).*fftshift"):
        sciml.problem("mri", kspace=k, sigma=0.1)
    with pytest.warns(UserWarning, match="read as 12 coils of 10 samples.*kspace\\[None\\]"):
        sciml.problem("mri", kspace=centred[0], sigma=0.1, maps=np.ones((12, 10), complex))
    with pytest.warns(UserWarning, match="12 coils of 10 x 1 samples.*moveaxis"):
        sciml.problem("mri", kspace=np.moveaxis(centred, 0, -1), sigma=0.1, maps=np.ones((12, 10, 1), complex))
