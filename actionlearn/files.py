"""Files that are either whole or absent: atomic writes, checksums, and JSON read with a clear complaint."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from actionlearn.errors import DataError, InvalidInput

PARTIAL = ".partial"
"""Suffix of a file that is being written; one left over from a kill can be deleted."""

_LIST_OF_NUMBERS = re.compile(r'\[[^][{}"]*\]')


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file that takes the name `path` only once it is whole and on the disk."""
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, readable by people and the same for the same content."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    text = _LIST_OF_NUMBERS.sub(lambda found: " ".join(found[0].split()), text)
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> Any:
    """Read JSON, or raise `DataError` naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:  # covers both broken JSON and bytes that are no text
        raise DataError(f"{path} is not readable as JSON ({problem}): it is damaged or another kind of file") from None


def sha256(path: Path) -> str:
    """Checksum of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writable_folder(path: Path) -> None:
    """Make the folder if need be and see that files can be written in it, or raise `InvalidInput`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"probe.{os.getpid()}{PARTIAL}"
        probe.touch()
        probe.unlink()
    except OSError as problem:
        raise InvalidInput(f"cannot write in folder {path} ({problem.strerror}): choose another folder") from None


def remove_partial(folder: Path) -> None:
    """Delete what writers that were killed left half done in a folder."""
    for path in folder.glob(f"*{PARTIAL}"):
        path.unlink(missing_ok=True)
