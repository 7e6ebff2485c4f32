"""From words on the command line to objects: settings, problems, solvers, networks, files."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sciml.domains.errors import InputError

if TYPE_CHECKING:
    import xarray

    from sciml.training.fitted import Fit

__all__ = [
    "answer_shape", "build", "check_ending", "check_writable", "contents", "fit_of", "kinds", "names_of", "opened", "pick",
    "problem_of", "settings_of", "solver_of", "targets_of", "value_of",
]  # fmt: skip

Thing = TypeVar("Thing")
WHOLE_BYTES = 256 * 1024**2


def value_of(text: str) -> Any:
    """``3``, ``-2.5e-3``, ``true``, ``none``, ``0,0.5,1`` (a tuple) or text; nothing is evaluated."""
    if "," in text:
        return tuple(value_of(part.strip()) for part in text.split(",") if part.strip())
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    word = text.lower()
    if word in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[word]
    try:
        return float(text)
    except ValueError:
        return text


def settings_of(words: Sequence[str] | None) -> dict[str, Any]:
    """``["n=85", "viscosity=0.01"]`` as a dictionary.

    Raises:
        InputError: a word without ``=`` or a name given twice.
    """
    return {key: value_of(text) for key, text in names_of(words, "n=85").items()}


def targets_of(words: Sequence[str] | None) -> dict[str, float]:
    """``["optimality=1e-4"]`` as numbers.

    Raises:
        InputError: a word without ``=``, a name given twice, or a value that is no number.
    """
    found: dict[str, float] = {}
    for key, value in settings_of(words).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"the target {key} is '{value}', which is no number; write it like {key}=1e-4.")
        found[key] = float(value)
    return found


def names_of(words: Sequence[str] | None, like: str = "nu=coefficient") -> dict[str, str]:
    """``["nu=coefficient"]`` as a dictionary of text.

    Raises:
        InputError: a word without ``=`` or a name given twice.
    """
    found: dict[str, str] = {}
    for word in words or ():
        key, sign, text = word.partition("=")
        if not sign or not key or not text:
            raise InputError(f"'{word}' is not of the form name=value; write it like {like}, without spaces.")
        if key in found:
            raise InputError(f"'{key}' is given twice ({found[key]} and {text}); give it once.")
        found[key] = text
    return found


def pick(kind: str, name: str, known: Mapping[str, Thing]) -> Thing:
    """The entry whose name is ``name`` up to case, ``-`` and ``_``.

    Raises:
        InputError: there is none; the nearest names are shown.
    """

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    for key, thing in known.items():
        if plain(key) == plain(name):
            return thing
    lower = {plain(key): key for key in known}
    near = [lower[word] for word in difflib.get_close_matches(plain(name), lower, 1)]
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"there is no {kind} '{name}'; {hint}known: {', '.join(sorted(known)) or 'none'}.")


def build(kind: str, made: Any, settings: Mapping[str, Any]) -> Any:
    """An object of a class with settings checked by name.

    Raises:
        InputError: a setting that the class does not have, or one that is missing.
    """
    known = {
        key: entry for key, entry in inspect.signature(made).parameters.items() if entry.kind is not entry.VAR_KEYWORD
    }
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(
                f"{kind} {made.__name__} has no setting '{key}'; {hint}it has {', '.join(known) or 'none'}."
            )
    missing = [
        key
        for key, entry in known.items()
        if entry.default is entry.empty and key not in settings and entry.kind is not entry.VAR_POSITIONAL
    ]
    if missing:
        raise InputError(
            f"{kind} {made.__name__} needs the setting '{missing[0]}', which the command line cannot give here; use it from Python."
        )
    try:
        return made(**settings)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        told = " ".join(f"{key}={value}" for key, value in settings.items())
        raise InputError(f"{kind} {made.__name__} cannot be made with {told or 'its defaults'}: {error}.") from error


def problem_of(name: str, settings: dict[str, Any], batch: int | None) -> Any:
    """A problem of the catalogue or of a file.

    Raises:
        InputError: unknown name or setting, or a value that the problem refuses.
    """
    from sciml.catalogue import problem

    if "batch" in settings:
        if batch is not None:
            raise InputError("the batch is given twice, as --batch and in --set; give it once.")
        batch = settings["batch"]
        settings = {key: value for key, value in settings.items() if key != "batch"}
    try:
        return problem(name, batch=batch, **settings)
    except InputError:
        raise
    except Exception as error:
        if name.endswith(".py"):  # the user's own file: its author wants to see where
            import traceback

            traceback.print_exc()
        elif not isinstance(error, TypeError | ValueError | RuntimeError):
            raise
        told = " ".join(f"{key}={value}" for key, value in settings.items()) or "its defaults"
        raise InputError(
            f"the problem '{name}' cannot be built with {told} ({type(error).__name__}: {error}); change a setting."
        ) from error


def kinds(names: Iterable[str]) -> dict[str, str]:
    """The kind of each problem of the catalogue (Linear, Evolution, Inverse, ...), as its file promises it."""
    import ast

    from sciml.catalogue import folder

    found = {}
    for name in names:
        tree = ast.parse((folder("problems") / f"{name}.py").read_text())
        kept = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "problem"]
        returned = kept[0].returns if kept else None
        found[name] = "" if returned is None else ast.unparse(returned).partition("[")[0].rpartition(".")[2]
    return found


def solver_of(name: str | None, settings: dict[str, Any], guess: str | None, posed: Any) -> Any:
    """A solver by the name of its class, behind the network of ``guess`` if there is one; None for the recommended one.

    Raises:
        InputError: no such solver, or a setting that it does not have.
    """
    from sciml.learned import Rollout, Trained
    from sciml.solvers.chained import Chained
    from sciml.solving.advise import solvers

    known = {kind.__name__: kind for kind in solvers()}
    if name is None and settings:
        raise InputError("--solver-set goes with --solver; name the solver.")
    solver: Any = None
    if name is not None:
        kind = pick("solver", name, known)
        if kind in (Trained, Rollout):
            if guess is None:
                raise InputError(f"{kind.__name__} needs a network; give its folder or name as --guess.")
            return build("solver", kind, {"fit": fit_of(guess), **settings})
        named = {key: value for key, value in settings.items() if isinstance(value, str)}
        parts = {key: build("solver", pick("solver", value, known), {}) for key, value in named.items()}
        solver = build("solver", kind, {**settings, **parts})
    if guess is None:
        return solver
    if solver is None:
        if posed.recommend is None:
            raise InputError(f"{posed.name!r} recommends no solver; name one with --solver.")
        solver = posed.recommend(posed)
    fit = fit_of(guess)
    return Chained(Rollout(fit) if fit.signature.history else Trained(fit), solver)


def fit_of(name: str) -> Fit:
    """A fit: the folder of a run, or pretrained weights by name.

    Raises:
        InputError: neither is there.
    """
    from sciml.catalogue import pretrained
    from sciml.training.fitted import Fit

    return Fit.load(name) if Path(name).exists() else pretrained(name)


def opened(file: str | Path, names: Sequence[str] | None, dims: Sequence[str] | None) -> xarray.Dataset:
    """A data file with names and axes as given on the command line."""
    from sciml.files import open_dataset

    return open_dataset(file, names=names_of(names) or None, dims=tuple(dims) if dims else None)


def check_writable(path: Path | None, folder: bool = False) -> None:
    """Find out before the work whether its result can be written.

    Raises:
        InputError: the folder is missing or not writable, the disk is full, or the name is taken by a folder or file.
    """
    import os
    import tempfile

    if path is None:
        return
    place = path.absolute() if folder else path.absolute().parent
    if folder and path.exists() and not path.is_dir():
        raise InputError(f"'{path}' is a file; --out is a folder here, so choose another name.")
    if not folder and path.is_dir():
        raise InputError(f"'{path}' is a folder; give the name of a file.")
    try:
        if folder:
            place.mkdir(parents=True, exist_ok=True)
        elif not place.is_dir():
            raise InputError(f"cannot write '{path}': the folder {place} does not exist; create it first.")
        with tempfile.NamedTemporaryFile(dir=place, prefix=".sciml-") as trial:
            trial.write(bytes(64 * 1024))
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        raise InputError(
            f"cannot write '{path}' ({error.strerror or error}); choose another place or free some space."
        ) from error


def check_ending(path: Path | None, endings: Sequence[str], option: str) -> None:
    """Find out before the work whether a file of this name will be written.

    Raises:
        InputError: its ending names another kind of file.
    """
    if path is not None and path.suffix.lower() not in endings:
        raise InputError(f"cannot write '{path}': {option} is a file that ends in {' or '.join(endings)}.")


def answer_shape(posed: Any) -> tuple[int, ...]:
    """Shape of one member's answer."""
    times = getattr(posed, "times", None)
    shape = tuple(int(n) for n in posed.space.shape)
    return shape if times is None else (len(times), *shape)


def contents(data: xarray.Dataset) -> dict[str, Any]:
    """What a data set holds, as plain data. Ranges of a large variable are those of its first members (said so)."""
    import numpy as np

    from sciml.show.summary import plain

    rows: list[dict[str, Any]] = []
    for name, variable in data.data_vars.items():
        seen, part = variable, ""
        first = variable.dims[0] if variable.dims else None
        if variable.nbytes > WHOLE_BYTES and first is not None:
            count = max(1, int(variable.sizes[first] * WHOLE_BYTES / variable.nbytes))
            seen, part = variable.isel({first: slice(count)}), f" (first {count} of {first})"
        row: dict[str, Any] = {
            "variable": str(name),
            "axes": {str(k): int(v) for k, v in variable.sizes.items()},
            "type": str(variable.dtype),
            "unit": str(variable.attrs.get("units", "")),
            "smallest": None,
            "largest": None,
            "not finite": None,
        }
        values = np.asarray(seen.values)
        if values.size and values.dtype.kind in "biufc":
            size = (
                np.abs(values)
                if values.dtype.kind == "c"
                else values.astype(float)
                if values.dtype.kind == "b"
                else values
            )
            finite = size[np.isfinite(size)]
            row |= {"not finite": int(values.size - finite.size)}
            if finite.size:
                row |= {"smallest": float(finite.min()), "largest": float(finite.max())}
        row["type"] += part
        rows.append(row)
    lines = [
        {
            "coordinate": str(name),
            "length": int(line.size),
            "unit": str(line.attrs.get("units", "")),
            "first": plain(line.values.reshape(-1)[0]),
            "last": plain(line.values.reshape(-1)[-1]),
        }
        for name, line in data.coords.items()
        if line.size
    ]
    return {"variables": plain(rows), "coordinates": lines, "attributes": plain(dict(data.attrs))}
