"""Where a problem came from: name or path, settings and changes, enough to build it again.

Small things are kept as JSON; tensors (in settings or in changes) by SHA-256 digest, with the arrays beside. Problems
from the catalogue pickle through their recipe, so a lambda inside a problem file is no obstacle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sciml.domains.boundary import Dirichlet, Neumann, Periodic, Robin
from sciml.domains.errors import InputError
from sciml.domains.random_fields import GaussianField

__all__ = ["Recipe", "Recommended", "digest", "portable"]

# Objects that may stand in settings and are written by name; nothing else is ever looked up.
OBJECTS: dict[str, Any] = {kind.__name__: kind for kind in (Dirichlet, Neumann, Robin, Periodic, GaussianField)}

# Set by the catalogue when it is imported: builds a problem from (source, settings).
_builder: list[Callable[[Recipe], Any]] = []


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and bytes."""
    flat = tensor.detach().cpu().contiguous()
    head = f"{flat.dtype}{tuple(flat.shape)}".encode()
    return hashlib.sha256(head + flat.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Recipe:
    """Provenance: ``source`` (catalogue name or path), ``sha256`` of the file, settings, and the changes made since.

    ``words`` are the objects that JSON could not hold (a prior given by hand), as text: such a recipe tells, it does not build.
    """

    source: str
    sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[tuple[str, Any], ...] = ()
    arrays: Mapping[str, Tensor] = field(default_factory=dict, metadata={"opaque": True})
    complete: bool = True
    words: tuple[str, ...] = ()

    def changed(self, verb: str, argument: Any) -> Recipe:
        """The recipe after one more change (``replace``, ``member``, ``with_target``, ``to``)."""
        arrays = dict(self.arrays)
        return replace(self, changes=(*self.changes, (verb, _pack(argument, arrays))), arrays=arrays)

    def argument(self, packed: Any) -> Any:
        """A setting or change argument with its arrays put back."""
        if isinstance(packed, Mapping):
            if set(packed) == {"array"}:
                return self.arrays[packed["array"]]
            if "object" in packed:
                kind = OBJECTS[packed["object"]]
                return kind(**{key: self.argument(value) for key, value in packed.items() if key != "object"})
            if set(packed) == {"scalar", "dtype"}:
                return torch.tensor(packed["scalar"], dtype=getattr(torch, packed["dtype"]))
            return {key: self.argument(value) for key, value in packed.items()}
        if isinstance(packed, list | tuple):
            return type(packed)(self.argument(value) for value in packed)
        return packed

    @staticmethod
    def of(source: str, sha256: str, settings: Mapping[str, Any]) -> Recipe:
        """A fresh recipe; settings that are neither JSON nor tensors make it incomplete (it then pickles by value)."""
        arrays: dict[str, Tensor] = {}
        packed = {key: _pack(value, arrays) for key, value in settings.items()}
        try:
            json.dumps(packed)
        except TypeError:
            words = tuple(f"{value!r}" for value in packed.values() if not _is_json(value))
            packed = {key: value if _is_json(value) else f"{value!r}" for key, value in packed.items()}
            return Recipe(source, sha256, packed, arrays=arrays, complete=False, words=words)
        return Recipe(source, sha256, packed, arrays=arrays)

    def to_json(self) -> str:
        """The recipe as JSON, arrays as digests. Objects that JSON cannot hold are told in words; it is then not complete."""
        told = list(self.words)

        def words(thing: Any) -> str:
            told.append(repr(thing))
            return repr(thing)

        parts = {
            "source": self.source,
            "sha256": self.sha256,
            "settings": self._digested(dict(self.settings)),
            "changes": self._digested(list(self.changes)),
        }
        text = json.dumps(parts, default=words)
        return json.dumps({**json.loads(text), "complete": self.complete and not told, "words": told})

    def _digested(self, packed: Any) -> Any:
        if isinstance(packed, Mapping):
            if set(packed) == {"array"}:
                return {
                    "array": digest(self.arrays[packed["array"]]) if packed["array"] in self.arrays else packed["array"]
                }
            return {key: self._digested(value) for key, value in packed.items()}
        return [self._digested(value) for value in packed] if isinstance(packed, list | tuple) else packed

    @staticmethod
    def from_json(text: str) -> Recipe:
        """The recipe as it stood in a file (without arrays)."""
        data = json.loads(text)
        return Recipe(
            data["source"],
            data["sha256"],
            data["settings"],
            tuple((verb, argument) for verb, argument in data["changes"]),
            complete=data["complete"],
            words=tuple(data.get("words", ())),
        )

    def build(self) -> Any:
        """The problem: loaded by the catalogue, with the changes applied in their order.

        Raises InputError for a recipe that tells an object in words only.
        """
        if not self.complete:
            what = self.words[0] if self.words else "an object of Python"
            what = what if len(what) <= 200 else what[:200] + "..."
            raise InputError(
                f"the recipe of {self.source!r} tells {what} in words only, so the problem cannot be built from it; state it again in Python and call problem.certify(value)"
            )
        if not _builder:
            import importlib

            importlib.import_module("sciml.catalogue")
        problem = _builder[0](self)
        for verb, packed in self.changes:
            problem = Recipe.change(problem, verb, self.argument(packed))
        return problem

    @staticmethod
    def change(problem: Any, verb: str, argument: Any) -> Any:
        """A problem after one recorded change."""
        if verb == "replace":
            return problem.replace(**argument)
        if verb == "member":
            return problem.member(argument)
        if verb == "with_target":
            return problem.with_target(**argument)
        if verb == "with_prior":
            return problem.with_prior(**argument)
        if verb == "with_weight":
            return problem.with_weight(argument)
        if "dtype" in argument:
            return problem.to(getattr(torch, argument["dtype"]))
        return problem.to(device=argument["device"])


@dataclass(frozen=True)
class Recommended:
    """The recommendation of a problem file, by the name or path of the file."""

    source: str

    def __call__(self, problem: Any) -> Any:
        """The solver that the file recommends."""
        import importlib

        return importlib.import_module("sciml.catalogue").recommended(self.source, problem)


def portable(state: Mapping[str, Any]) -> dict[str, Any]:
    """A problem's state with the recommendation of its file by the file's name: functions of loaded files do not pickle."""
    recipe, advice = state.get("recipe"), state.get("recommend")
    if recipe is None or advice is None or isinstance(advice, Recommended):
        return dict(state)
    return {**state, "recommend": Recommended(recipe.source)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _pack(value: Any, arrays: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        if value.ndim == 0:
            return {"scalar": value.item(), "dtype": str(value.dtype).removeprefix("torch.")}
        key = str(len(arrays))  # the digest is computed when the recipe is written
        arrays[key] = value.detach()
        return {"array": key}
    if type(value).__name__ in OBJECTS and type(value) is OBJECTS[type(value).__name__]:
        parts = {f.name: _pack(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"object": type(value).__name__, **parts}
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, Mapping):
        return {key: _pack(entry, arrays) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(entry, arrays) for entry in value]
    return value
