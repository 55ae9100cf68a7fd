# SPDX-License-Identifier: Apache-2.0
"""Where the pictures of samples come from: a folder, or WebDataset shards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image import Pixels
from mobilevlm_ros.processing.image_decoder import MAX_BYTES, decode_image
from mobilevlm_ros.processing.image_file import read_picture


class PictureSource(Protocol):
    """Reads a picture by the name that a sample gives it."""

    def find_problem(self, name: str) -> str | None:
        """Why a picture cannot be there, or None. Cheap: nothing is decoded."""

    def read(self, name: str) -> Pixels:
        """u8[H, W, 3] RGB. Raises ImageError."""


@dataclass(frozen=True)
class FolderPictures:
    """Names are paths below a folder."""

    folder: Path

    def find_problem(self, name: str) -> str | None:
        """See PictureSource."""
        path = self.folder / name
        return None if os.path.isfile(path) else f"names the picture {path}, which is not there"

    def read(self, name: str) -> Pixels:
        """See PictureSource."""
        return read_picture(self.folder / name)


@dataclass(frozen=True)
class Member:
    """A file inside a tar file: where its bytes are."""

    tar: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Its bytes. Raises OSError, also where the tar file ends before them."""
        with self.tar.open("rb") as stream:
            data = os.pread(stream.fileno(), self.size, self.offset)
        if len(data) < self.size:
            raise OSError(0, f"{self.tar} ends in the middle of it")
        return data


@dataclass(frozen=True)
class TarPictures:
    """Names are those of members of tar files, which are read where they lie: nothing is unpacked."""

    members: Mapping[str, Member] = field(repr=False)

    def find_problem(self, name: str) -> str | None:
        """See PictureSource."""
        member = self.members.get(name)
        if member is None:
            return f"names the picture {name}, which is in none of the shards"
        if member.size > MAX_BYTES:
            return f"names the picture {name}, which is larger than {MAX_BYTES} bytes"
        if member.offset + member.size > member.tar.stat().st_size:
            return f"names the picture {name}, in whose middle {member.tar} ends"
        return None

    def read(self, name: str) -> Pixels:
        """See PictureSource."""
        try:
            data = self.members[name].read()
        except (KeyError, OSError) as error:
            raise ImageError(f"{name} cannot be read: {error}") from error
        return decode_image(data, name)
