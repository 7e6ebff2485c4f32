"""The catalogue's deblurring: simulated and measured images, boundaries, noise, the recommended solver."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import sciml
from sciml.core import GaussianNoise
from sciml.domains import InputError
from sciml.forward import Valid, motion_kernel
from sciml.solvers import Discrepancy, PlugAndPlay, PrimalDual, ProximalGradient


def error(value: torch.Tensor, truth: torch.Tensor) -> float:
    return float((value - truth).norm() / truth.norm())


def test_the_simulation_is_what_it_says() -> None:
    posed = sciml.problem("deblur", n=(40, 31), sigma=0.02, seed=4)
    assert posed.data.shape == posed.truth.shape == (1, 1, 40, 31)
    rest = (posed.data - posed.forward(posed.truth)) / 0.02
    assert abs(float(rest.std()) - 1) < 0.1  # 1240 normal numbers: deviation 0.02
    assert abs(float(rest.mean())) < 0.1
    assert abs(float(posed.misfit(posed.truth)) - 1) < 0.15
    wrong = sciml.problem("deblur", n=(40, 31), sigma=0.02, seed=4, width=3.0)
    assert abs(float(posed.noise.chi_square(wrong.forward(posed.truth), posed.data)) / 1240 - 1) > 0.3


def test_members_depend_on_seed_and_number_alone() -> None:
    batch = sciml.problem("deblur", n=16, batch=3, seed=1)
    more = sciml.problem("deblur", n=16, batch=5, seed=1)
    assert torch.equal(batch.data, more.data[:3])
    assert torch.equal(batch.data[:1], sciml.problem("deblur", n=16, seed=1).data)
    assert not torch.equal(batch.data[0], batch.data[1])


def test_the_solution_is_sharper_than_the_data() -> None:
    posed = sciml.problem("deblur", n=32)
    solution = sciml.solve(posed)
    assert solution.ok, str(solution)
    assert error(solution.value, posed.truth) < 0.85 * error(posed.data, posed.truth)


def test_measured_images() -> None:
    """A motion blur of a large image, of which only the middle was photographed: nothing is assumed of the sides."""
    whole = sciml.problem("deblur", n=48, seed=2)
    kernel = motion_kernel(7.0, 0.5)
    seen = sciml.forward.Convolution(whole.forward.pixels, kernel, Valid())(whole.truth)
    noisy = GaussianNoise(0.01).sample(seen, generator=torch.Generator().manual_seed(0))
    posed = sciml.problem("deblur", data=noisy[0, 0], kernel=kernel, boundary="valid")
    assert posed.space.shape == (1, 48, 48)
    assert posed.truth is None
    assert 0.008 < float(posed.noise.sigma) < 0.013  # estimated from 42 x 46 data
    assert abs(float(posed.misfit(whole.truth)) - 1) < 0.4
    given = sciml.problem("deblur", data=noisy[0, 0], kernel=kernel, boundary="valid", sigma=0.02)
    assert given.noise.sigma == 0.02
    array = sciml.problem("deblur", data=noisy[0, 0].numpy(), kernel=kernel, boundary="valid", sigma=0.02)
    assert torch.equal(array.data, given.data)


def test_your_own_image_and_other_dimensions() -> None:
    image = torch.linspace(0, 1, 60, dtype=torch.float64).round()
    posed = sciml.problem("deblur", image=image, width=1.5, boundary="nearest")
    assert posed.space.shape == (1, 60)
    assert torch.equal(posed.truth[0, 0], image)
    volume = sciml.problem("deblur", image=torch.zeros(6, 7, 8, dtype=torch.float64), width=(1.0, 1.0, 0.5))
    assert volume.data.shape == (1, 1, 6, 7, 8)


def test_images_come_as_arrays_lists_and_batches() -> None:
    """Each member is blurred as it would be alone; several images are not shortened to the first."""
    images = torch.rand(3, 1, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    posed = sciml.problem("deblur", image=images.numpy(), width=1.0, kernel=None)
    assert posed.batch == 3 and torch.equal(posed.truth, images)
    for given in (images[0, 0].numpy(), images[0, 0].tolist()):
        assert torch.equal(sciml.problem("deblur", image=given, width=1.0).data, posed.data[:1])
    repeated = sciml.problem("deblur", image=images[0, 0], width=1.0, batch=2)
    assert repeated.batch == 2 and torch.equal(repeated.truth[1], images[0])
    assert not torch.equal(repeated.data[0], repeated.data[1])  # noise of its own
    import xarray

    table = xarray.Dataset({"photograph": (("x", "y"), images[0, 0].numpy())})
    read = sciml.problem("deblur", data=table, sigma=0.1)
    assert torch.equal(read.data, sciml.problem("deblur", data=images[0, 0], sigma=0.1).data)
    with pytest.raises(InputError, match="photograph, mask; give one"):
        sciml.problem("deblur", data=table.assign(mask=table.photograph > 0))
    kernel = torch.ones(3, 3, dtype=torch.float64) / 9
    one, two = (sciml.problem("deblur", n=12, kernel=k) for k in (kernel, kernel.numpy()))
    assert torch.equal(one.data, two.data)


def test_bad_settings_are_named() -> None:
    image = torch.zeros(9, 9, dtype=torch.float64)
    with pytest.raises(InputError, match="3 images and batch=2"):
        sciml.problem("deblur", image=torch.zeros(3, 1, 9, 9), batch=2)
    with pytest.raises(InputError, match="real tensor"):
        sciml.problem("deblur", image=image + 1j)
    with pytest.raises(InputError, match="makes no tensor"):
        sciml.problem("deblur", image="sharp")
    with pytest.raises(InputError, match="no boundary 'mirror'; deblur knows reflect"):
        sciml.problem("deblur", n=16, boundary="mirror")
    with pytest.raises(InputError, match="not both"):
        sciml.problem("deblur", data=image, image=image)
    with pytest.raises(InputError, match="sigma is 0"):
        sciml.problem("deblur", n=16, sigma=0.0)
    with pytest.raises(InputError, match="without batch="):
        sciml.problem("deblur", data=image, batch=2)
    with pytest.raises(InputError, match="makes no tensor .open a file with sciml.open_dataset"):
        sciml.problem("deblur", data="blurred.npy")
    with pytest.raises(InputError, match="in the plane"):
        sciml.problem("deblur", n=(8, 8, 8))


def test_the_solver_goes_with_the_prior() -> None:
    problem = sciml.problem("deblur", n=16)
    unfolded = sciml.pretrained("unfolded-ellipses")

    def recommended(prior: Any, weight: float | None = None) -> Any:
        posed = problem.with_prior(prior, weight)
        return posed.recommend(posed)

    convex = problem.recommend(problem)
    assert isinstance(convex, Discrepancy) and isinstance(convex.inner, PrimalDual)
    assert isinstance(recommended(sciml.Denoiser(lambda x, sigma: x, range=(0, 1))), PlugAndPlay)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trained in other units
        assert isinstance(recommended(sciml.pretrained("lpn-ellipses"), 100.0), ProximalGradient)
        assert type(recommended(unfolded)) is type(unfolded.solver())
