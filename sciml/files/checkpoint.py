"""Files that are whole or absent: written under a temporary name, forced to disk, then renamed."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from sciml.domains.errors import InputError

__all__ = ["load_json", "load_tensors", "replacing", "save_json", "save_tensors", "write_atomic"]


@contextmanager
def replacing(path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> Iterator[str]:
    """Give a temporary name; on success that file is forced to disk and takes the place of `path`.

    The temporary file lies beside `path`, or in `folder`, which must be on the same disk.

    Raises:
        InputError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path).resolve()
    if target.is_dir():
        raise InputError(f"'{target}' is a folder; give the name of a file.")
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, made = tempfile.mkstemp(dir=folder or target.parent, prefix=f".{target.name}.", suffix=".tmp")
        os.close(descriptor)
        temporary = Path(made)
        yield made
        _force(temporary, os.O_RDWR)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        _force(target.parent, os.O_RDONLY)
    except OSError as error:
        _discard(temporary)
        raise InputError(_reason(target, error)) from error
    except BaseException:
        _discard(temporary)
        raise


def _reason(target: Path, error: OSError) -> str:
    code = error.errno
    if code is None and "No space left" in str(error):
        code = errno.ENOSPC
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"'{target}' was not written: the disk is full; free some space or choose another folder."
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"'{target}' cannot be written: permission denied; choose another folder."
    if code in (errno.ENOTDIR, errno.EEXIST):
        return f"'{target}' cannot be written: a part of its path is a file; choose another folder."
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"'{target}' was not written ({text}); choose another folder."


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def _discard(temporary: Path | None) -> None:
    if temporary is not None:
        temporary.unlink(missing_ok=True)


def _force(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes so that `path` holds either its old content or all of the new.

    Raises:
        InputError: the folder is not writable or the disk is full.
    """
    with replacing(path) as temporary, Path(temporary).open("wb") as file:
        file.write(content)


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors and text as one safetensors file, whole or not at all.

    Raises:
        InputError: the folder is not writable or the disk is full.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(plain, metadata=dict(metadata) if metadata else None))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors on the CPU, and the text beside them.

    Raises:
        InputError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    location = os.fspath(path)
    if not Path(location).is_file():
        raise InputError(f"there is no file '{location}'; check the path.")
    try:
        with safe_open(location, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"'{location}' is not a whole safetensors file ({text}); delete it and make it again."
        ) from error


def save_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON, whole or not at all.

    Raises:
        InputError: the folder is not writable, the disk is full, or the value is not JSON.
    """
    try:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"'{os.fspath(path)}' cannot hold this ({error}); use finite numbers and text.") from error
    write_atomic(path, (text + "\n").encode())


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is missing or damaged.
    """
    location = os.fspath(path)
    if not Path(location).is_file():
        raise InputError(f"there is no file '{location}'; check the path.")
    try:
        with Path(location).open(encoding="utf-8") as file:
            return json.load(file)
    except (ValueError, OSError) as error:
        raise InputError(f"'{location}' is not whole JSON ({error}); delete it and make it again.") from error
