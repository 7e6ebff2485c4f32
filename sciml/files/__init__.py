"""What lies on disk: layouts of data files, checkpoints, histories."""

from __future__ import annotations

from sciml.files.checkpoint import load_json, load_tensors, save_json, save_tensors, write_atomic
from sciml.files.dataset import open_dataset
from sciml.files.record import Record

__all__ = ["Record", "load_json", "load_tensors", "open_dataset", "save_json", "save_tensors", "write_atomic"]
