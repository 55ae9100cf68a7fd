# SPDX-License-Identifier: Apache-2.0
"""A bundle's directory appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobilevlm_ros.errors import BundleError

MANIFEST = "bundle.json"


def check_target(out: Path, force: bool) -> None:
    """Raises BundleError when `out` is there and may not be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise BundleError(f"{out} exists and is not a bundle; choose another output directory")
    if not force:
        raise BundleError(
            f"{out} already holds a bundle; use --force to replace it, or another output directory"
        )


@contextmanager
def fresh_directory(out: Path) -> Iterator[Path]:
    """A directory beside `out` that is gone afterwards, whatever happens."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        work.chmod(0o755)
    except OSError as error:
        raise BundleError(f"cannot write beside {out}: {error}") from error
    try:
        yield work
    except OSError as error:
        raise BundleError(
            f"cannot write {out}: {error}; free space there, or choose another place"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def real_path(out: Path) -> Path:
    """Where a bundle called `out` lies: a link stays a link and its target is what is replaced."""
    return out.resolve() if out.is_symlink() or out.name in ("", "..") else out


def move_into_place(work: Path, out: Path, force: bool) -> None:
    """`work` becomes `out`; what was there is gone only once that has succeeded.

    Raises BundleError when something may not be replaced that was not there at the beginning.
    """
    check_target(out, force)
    old = work.with_name(work.name + ".old")
    if out.exists():
        os.replace(out, old)
    try:
        os.replace(work, out)
    except BaseException:
        if old.exists():
            os.replace(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)
