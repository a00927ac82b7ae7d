"""Keeping freed memory at hand."""

from __future__ import annotations

import functools

import torch

LARGEST_MIB = 30
"""The largest block that the C library may still keep, 32 MiB, less a margin."""


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep what is freed, up to twice `LARGEST_MIB`, instead of returning it to the system.

    A gradient makes and frees a few MiB in pieces of some hundred KiB. By default glibc hands memory of that size
    back each time, and every page of it is fetched and zeroed anew at the next gradient: a quarter of its time for
    a hundred atoms. Freeing one large block once raises that threshold for good (mallopt(3), M_MMAP_THRESHOLD); none of
    the block is ever touched. Elsewhere this does nothing.
    """
    torch.empty(LARGEST_MIB * 2**20, dtype=torch.uint8)
