"""Pictures of solutions: something is drawn, in the right place, and files are whole or absent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sciml.core import Check, Code, Evolution, Linear, Solution
from sciml.discretise import Diffusion
from sciml.domains import Grid, InputError, Periodic
from sciml.show import plot
from sciml.show.canvas import blank, encode

SHAPES = {1: ((14,), (2.0,)), 2: ((9, 14), (1.0, 2.0)), 3: ((9, 14, 11), (1.0, 2.0, 0.7))}


def solution_of(problem: Any, value: torch.Tensor, code: Code = Code.CONVERGED, **more: Any) -> Solution:
    batch = len(value)
    checks = (Check("discrete backward error", torch.full((batch,), 1e-12), 1e-10),)
    history = torch.logspace(0, -12, 7).reshape(-1, 1).expand(-1, batch)
    settings = {"history": history, **more}
    return Solution(
        value, torch.full((batch,), int(code)), checks, problem, object(), {"seconds": 0.1, "steps": 6}, **settings
    )


def steady(dim: int, batch: int = 2) -> Solution:
    shape, extent = SHAPES[dim]
    grid = Grid(shape, extent)
    points = grid.points()
    problem = Linear("plate", Diffusion(grid, 1 + points[0]), source=torch.sin(points[-1]))
    value = sum(points).expand(batch, 1, *shape) * torch.arange(1, batch + 1).reshape(-1, *[1] * (dim + 1))
    return solution_of(problem, value)


def evolving(dim: int, frames: int = 4, channels: int = 1, speed: float = 2.5) -> Solution:
    shape, extent = SHAPES[dim]
    grid = Grid(shape, extent, Periodic())
    space = grid.space(channels)
    times = tuple(0.3 * (i + 1) for i in range(frames))
    start = torch.sin(6 * grid.points()[0]).expand(1, channels, *shape)
    problem = Evolution("wave", space, start, times=times)
    value = torch.stack([start * np.cos(speed * t) for t in times], 1)
    return solution_of(problem, value, history=None)


def ink(figure: Any) -> float:
    """The share of pixels that are not white."""
    import io

    pixels = np.asarray(Image.open(io.BytesIO(encode(figure, dpi=50))).convert("L"))
    return float((pixels < 250).mean())


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_steady_solution_is_drawn(dim: int) -> None:
    figure = plot(steady(dim), member=1)
    per_field = 3 if dim == 3 else 1
    assert len(figure.axes) >= 3 * per_field + 1  # coefficient, source, u, history
    assert ink(figure) > 0.02
    assert "CONVERGED" in figure.get_suptitle()
    assert "1.0e-12 (target 1e-10)" in figure.get_suptitle()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_an_evolution_is_drawn(dim: int) -> None:
    figure = plot(evolving(dim))
    assert ink(figure) > 0.02
    titles = " ".join(axes.get_title(loc="left") for axes in figure.axes)
    assert "snapshots" in titles if dim == 1 else "t = 1.2" in titles


def test_the_check_of_ink_can_fail() -> None:
    assert ink(blank(3, 3)) < 0.001


def test_the_first_axis_runs_to_the_right() -> None:
    solution = steady(2)
    figure = plot(solution)
    drawn = next(axes for axes in figure.axes if axes.get_title(loc="left") == "u")
    image = drawn.images[0]
    values = solution.value[0, 0].numpy()
    assert np.array_equal(image.get_array(), values.T)
    assert not np.array_equal(image.get_array(), np.roll(values, 1, 0).T)  # the comparison can fail
    h = solution.problem.space.domain.spacing
    assert image.get_extent() == pytest.approx((h[0] / 2, 1 - h[0] / 2, h[1] / 2, 2 - h[1] / 2))


def test_every_member_is_its_own() -> None:
    solution = steady(1)
    lines = [plot(solution, member=i).axes[2].lines[0].get_ydata() for i in (0, 1)]
    assert np.allclose(2 * lines[0], lines[1])
    assert not np.allclose(lines[0], lines[1])


def test_failed_and_unusual_answers_are_drawn_too() -> None:
    shape, extent = SHAPES[2]
    solution = steady(2)
    holes = solution.value.clone()
    holes[0, 0, 3, 4] = float("nan")
    holes[1] = float("inf")
    broken = solution_of(solution.problem, holes, Code.DIVERGED)
    assert ink(plot(broken)) > 0.02 and ink(plot(broken, member=1)) > 0.01
    grid = Grid(shape, extent)
    waves = solution_of(
        dataclasses.replace(solution.problem), torch.polar(torch.ones(1, 1, *shape), grid.points()[0].float())
    )
    titles = [axes.get_title(loc="left") for axes in plot(waves).axes]
    assert "|u|" in titles and "phase of u" in titles
    spread = solution_of(solution.problem, solution.value, samples=torch.randn(5, *solution.value.shape))
    assert any("deviation" in axes.get_title(loc="left") for axes in plot(spread).axes)
    several = plot(evolving(1, channels=2))
    assert {"u[0]", "u[1]"} <= {axes.get_title(loc="left") for axes in several.axes}


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_a_figure_is_written(kind: str, tmp_path: Path) -> None:
    plot(steady(1), tmp_path / f"u.{kind}")
    assert [path.name for path in tmp_path.iterdir()] == [f"u.{kind}"]
    assert (tmp_path / f"u.{kind}").stat().st_size > 2000


def motion(path: Path) -> tuple[int, float]:
    """Frames of a movie, and the least change from one to the next below the line that tells the time."""
    with Image.open(path) as movie:
        frames = []
        for index in range(movie.n_frames):
            movie.seek(index)
            frames.append(np.asarray(movie.convert("RGB")).astype(int)[60:])
    return len(frames), min(np.abs(a - b).max() for a, b in zip(frames, frames[1:], strict=False))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_movie_moves(dim: int, tmp_path: Path) -> None:
    plot(evolving(dim, frames=5), tmp_path / "u.gif")
    frames, change = motion(tmp_path / "u.gif")
    assert frames == 6  # the start too
    assert change > 30


def test_the_check_of_motion_can_fail(tmp_path: Path) -> None:
    plot(evolving(1, frames=5, speed=0.0), tmp_path / "u.gif")
    assert motion(tmp_path / "u.gif")[1] < 30


def test_bad_requests_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no member 2"):
        plot(steady(1), member=2)
    with pytest.raises(InputError, match="folder .* does not exist"):
        plot(steady(1), tmp_path / "none" / "u.png")
    with pytest.raises(InputError, match="ending"):
        plot(steady(1), tmp_path / "u.bmp")
    with pytest.raises(InputError, match="does not evolve"):
        plot(steady(1), tmp_path / "u.gif")
    (tmp_path / "u.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        plot(steady(1), tmp_path / "u.png")
    assert [path.name for path in tmp_path.iterdir()] == ["u.png"]


def test_solutions_plot_themselves(tmp_path: Path) -> None:
    assert ink(steady(1).plot(tmp_path / "u.png")) > 0.02
    assert (tmp_path / "u.png").exists()
