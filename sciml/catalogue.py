"""The catalogue: problems, data sets and pretrained weights by name, or a user's own problem file by path.

A problem file holds plain functions: ``problem(**settings)`` builds it, ``solver(problem)`` recommends a solver,
``draw(count, *, seed, **settings)`` draws a batch of random members. Loading a file by path runs it: it is code.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import os
import pathlib
import types
from functools import cache
from typing import Any

import torch

from sciml.core.problem import Problem
from sciml.core.recipe import Recipe, _builder
from sciml.domains.errors import InputError

__all__ = ["dataset", "folder", "pretrained", "problem", "problems"]


def folder(kind: str) -> pathlib.Path:
    """The folder ``problems`` or ``data``: inside an installed wheel, else beside the package in a clone."""
    here = pathlib.Path(__file__).resolve().parent
    for candidate in (here / "_catalogue" / kind, here.parent / kind):
        if candidate.is_dir():
            return candidate
    raise InputError(f"the catalogue folder {kind!r} is missing from this installation; install sciml again")


def problems() -> dict[str, str]:
    """Catalogue names and the first line of what each is."""
    found = {}
    for path in sorted(folder("problems").glob("*.py")):
        if not path.name.startswith("_"):
            found[path.stem] = (inspect.getdoc(_load(path)) or "").partition("\n")[0]
    return found


def problem(source: str | os.PathLike[str], /, *, batch: int | None = None, **settings: Any) -> Any:
    """A problem by catalogue name (``"poisson"``) or path of a file (``"my/plate.py"``), with its settings.

    ``batch=64`` draws a batch of random members (the file's ``draw``). The problem carries its recipe and the solver that
    its file recommends. Raises InputError for an unknown name, a file without ``problem``, or an unknown setting.
    """
    path = _find(str(source))
    module = _load(path)
    name = "draw" if batch is not None else "problem"
    function = getattr(module, name, None)
    if function is None:
        raise InputError(
            f"{path.name} has no function {name}(...)"
            + ("; it draws no random members" if batch else "; define one that returns a problem")
        )
    if batch is not None and (not isinstance(batch, int) or batch < 1):
        raise InputError(f"batch is {batch!r}; it must be a positive integer")
    given = {key: _dtype(value) if key == "dtype" else value for key, value in settings.items()}
    built_settings = dict(given)
    if batch is not None:
        given["count"] = batch
        built_settings["batch"] = batch
    _check_settings(path, function, given, module)
    try:
        built = function(**given)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        values = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise InputError(f"{path.stem} cannot be built with {values}: {error}") from error
    if not isinstance(built, Problem):
        raise InputError(
            f"{name}(...) in {path.name} returned {type(built).__name__}; it must return a Linear, Equation or Evolution"
        )
    if batch is not None and built.batch != batch:
        raise InputError(
            f"batch={batch} draws random members, but with these settings {path.stem} has {built.batch}; leave out batch= where you give the members yourself"
        )
    defaults = {k: p.default for k, p in _known(function, module).items() if p.default is not inspect.Parameter.empty}
    recipe = Recipe.of(str(source), hashlib.sha256(path.read_bytes()).hexdigest(), {**defaults, **built_settings})
    changes: dict[str, Any] = {"recipe": recipe}
    if hasattr(module, "solver"):
        changes["recommend"] = module.solver
    import dataclasses

    return dataclasses.replace(built, **changes)  # type: ignore[type-var]


def _rebuild(recipe: Recipe) -> Any:
    settings = {key: recipe.argument(value) for key, value in recipe.settings.items()}
    path = _find(recipe.source)
    if hashlib.sha256(path.read_bytes()).hexdigest() != recipe.sha256:
        raise InputError(
            f"the file of {recipe.source!r} has changed since this recipe was written; the problem cannot be rebuilt the same"
        )
    return problem(recipe.source, **settings)


_builder.append(_rebuild)


def recommended(source: str, problem: Any) -> Any:
    """The solver that a problem file recommends."""
    return _load(_find(source)).solver(problem)


def _dtype(value: Any) -> Any:
    if isinstance(value, str):
        kind = getattr(torch, value, None)
        if not isinstance(kind, torch.dtype):
            raise InputError(f"dtype {value!r} is not a torch dtype; use 'float64' or 'float32'")
        return kind
    return value


def _find(source: str) -> pathlib.Path:
    if source.endswith(".py"):
        path = pathlib.Path(source)
        if not path.is_file():
            raise InputError(f"there is no problem file {source}")
        return path.resolve()
    path = folder("problems") / f"{source}.py"
    if not source.isidentifier() or not path.is_file():
        names = sorted(p.stem for p in folder("problems").glob("[a-z]*.py"))
        near = difflib.get_close_matches(source, names, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"there is no problem {source!r}; {hint}the catalogue has {', '.join(names)}, and a path to your own file ends in .py"
        )
    return path


def _load(path: pathlib.Path) -> types.ModuleType:
    return _loaded(path, path.stat().st_mtime_ns)


@cache
def _loaded(path: pathlib.Path, stamp: int) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"sciml_problem_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be loaded as a problem file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _known(function: Any, module: types.ModuleType) -> dict[str, inspect.Parameter]:
    """The settings of ``problem`` or ``draw``; a ``draw`` with ``**settings`` passes the others on to ``problem``."""
    known = dict(inspect.signature(function).parameters)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
        known = {**inspect.signature(module.problem).parameters, **known}
    return known


def _check_settings(path: pathlib.Path, function: Any, given: dict[str, Any], module: types.ModuleType) -> None:
    known = _known(function, module)
    for key in given:
        if key not in known:
            names = sorted(k for k in known if k not in ("settings", "count"))
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"{path.stem} has no setting {key!r}; {hint}it has {', '.join(names)}")


def dataset(name: str) -> Any:
    """A data set shipped with the package, by folder name, opened as an xarray.Dataset."""
    import tomllib

    from sciml.files import open_dataset

    home = folder("data") / name
    manifest = home / "manifest.toml"
    if not manifest.is_file():
        names = sorted(p.parent.name for p in folder("data").glob("*/manifest.toml"))
        raise InputError(f"there is no data set {name!r}; the package ships {', '.join(names)}")
    return open_dataset(home / tomllib.loads(manifest.read_text())["file"])


def pretrained(name: str) -> Any:
    """What is shipped under that name: a fit (network, normalisers, Signature) or a prior (a LearnedProx, a Denoiser), as its
    file says; or your own by the folder that ``sciml.fit(..., out=folder)`` or ``LearnedProx.save(folder)`` wrote."""
    from sciml.priors._stored import holds_prior, load_prior
    from sciml.training.fitted import Fit

    shipped = folder("data") / "pretrained"
    home = shipped / name
    if not (home / "checkpoint.safetensors").is_file():
        if not (pathlib.Path(name) / "checkpoint.safetensors").is_file():
            names = sorted(p.parent.name for p in shipped.glob("*/checkpoint.safetensors"))
            raise InputError(
                f"there are no pretrained weights {name!r} and no folder of a fit there; the package ships {', '.join(names) or 'none'}"
            )
        home = pathlib.Path(name)
    return load_prior(home) if holds_prior(home) else Fit.load(home)
