# SPDX-License-Identifier: Apache-2.0
"""A bundle: one directory with all a robot needs to serve a model, described and sealed by bundle.json."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mobilevlm_ros.errors import BundleError
from mobilevlm_ros.model.config import MobileVLMConfig
from mobilevlm_ros.processing.tokenizer import TOKENIZER

MANIFEST = "bundle.json"
SCHEMA_VERSION = 1
VISION = "vision.onnx"
DECODER = "decoder.onnx"
DECODER_TREE = "decoder.tree.onnx"
PREFILL = "prefill.onnx"
PREFILL_TREE = "prefill.tree.onnx"
EMBEDDINGS = "embeddings.npy"

Aspect = Literal["pad", "crop"]

_ESSENTIAL = frozenset(
    (MANIFEST, VISION, f"{VISION}.data", DECODER, f"{DECODER}.data", EMBEDDINGS, TOKENIZER)
)
_OPTIONAL = frozenset(("quality",))  # fields that came after the first bundles


@dataclass(frozen=True)
class Manifest:
    """What bundle.json says. Sizes in pixels and tokens."""

    name: str
    """Model id, as answers report it."""
    image_size: int
    image_tokens: int
    image_aspect: Aspect
    """How a frame becomes a square: 'pad' (to the mean colour) or 'crop' (the centre)."""
    hidden_size: int
    vocab_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    template: str
    """Key of processing.prompt.TEMPLATES."""
    stop_ids: tuple[int, ...]
    max_tokens: int
    """Default limit of an answer."""
    temperature: float
    """Default sampling temperature; 0 is greedy."""
    model: dict[str, Any] = field(default_factory=dict)
    """The checkpoint's config.json, tower included."""
    precision: dict[str, Any] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    """Name and sha256 of the checkpoint it was built from."""
    built_with: dict[str, str] = field(default_factory=dict)
    requires: dict[str, str] = field(default_factory=dict)
    """Least version of each runtime package that can run the graphs."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """File name to its `bytes` and `sha256`."""
    quality: dict[str, Any] = field(default_factory=dict)
    """What quantisation changed, as measured when it was built (engine.quality); empty where nobody did."""

    @classmethod
    def describe(cls, config: MobileVLMConfig, name: str, **more: Any) -> Manifest:
        """The manifest of a model with this configuration; `more` are fields that it does not determine."""
        language = config.language
        stop = config.to_json_dict()["eos_token_id"]
        values: dict[str, Any] = {
            "name": name,
            "image_size": config.vision.image_size,
            "image_tokens": config.num_image_tokens,
            "image_aspect": "pad" if config.image_aspect_ratio == "pad" else "crop",
            "hidden_size": language.hidden_size,
            "vocab_size": language.vocab_size,
            "num_layers": language.num_hidden_layers,
            "num_kv_heads": language.num_key_value_heads,
            "head_dim": language.head_dim,
            "context_length": language.context_length,
            "template": "v1",  # of every released model
            "stop_ids": (stop,),
            "max_tokens": 512,  # this and greedy decoding are what the official demo uses
            "temperature": 0.0,
            "model": config.to_json_dict(),
        }
        return cls(**{**values, **more})

    def to_json(self) -> str:
        """The text of bundle.json."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Reads bundle.json's text; `where` names it in errors. Raises BundleError."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{where} is not JSON ({error}); build the bundle again") from error
        if not isinstance(data, dict):
            raise BundleError(f"{where} is not a bundle manifest; build the bundle again")
        version = data.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{where} has schema version {version!r}, this mobilevlm_ros reads {SCHEMA_VERSION}; "
                "build the bundle again with `mobilevlm build`, or install the version that made it"
            )
        values: dict[str, Any] = {}
        for entry in dataclasses.fields(cls):
            if entry.name in _OPTIONAL and entry.name not in data:
                continue
            value = data.get(entry.name)
            if not _IS[str(entry.type)](value):
                raise BundleError(f"{where}: {entry.name} is missing or wrong; build the bundle again")
            values[entry.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_files(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(entry, dict)
        and _is_int(entry.get("bytes"))
        and isinstance(entry.get("sha256"), str)
        and _is_plain(name)
        for name, entry in value.items()
    )


def _is_plain(name: str) -> bool:
    """Whether it is a name in the bundle's own directory: a manifest must not make us read elsewhere."""
    return name == Path(name).name and name not in ("", ".", "..") and "\0" not in name


_IS = {
    "str": lambda value: isinstance(value, str),
    "int": _is_int,
    "Aspect": lambda value: value in ("pad", "crop"),
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "tuple[int, ...]": lambda value: isinstance(value, list) and all(map(_is_int, value)),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "dict[str, str]": lambda value: (
        isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())
    ),
    "dict[str, dict[str, Any]]": _is_files,
}


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Reads and verifies a bundle directory. Raises BundleError, which says what to do."""
        path = Path(path)
        _check_is_bundle(path)
        file = path / MANIFEST
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{file} cannot be read: {error}") from error
        bundle = cls(path, Manifest.from_json(text, str(file)))
        bundle._verify()
        return bundle

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files. Raises BundleError if the manifest does not list it."""
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.path} has no {name}; build it again with `mobilevlm build`")
        return self.path / name

    def add_file(self, name: str, content: bytes) -> Bundle:
        """Adds or replaces an optional file such as calibration.json, and returns the bundle with it.

        Whoever opens the bundle meanwhile, or after a power cut, finds it valid: with the old file, with the
        new one, or without one. Raises ValueError for a name that is not plain or that belongs to the model
        itself, BundleError when the directory cannot be written; the bundle is then as it was, or without
        the file.
        """
        if not _is_plain(name) or name in _ESSENTIAL:
            raise ValueError(f"{name!r} is not the name of an optional file of a bundle")
        others = {key: entry for key, entry in self.manifest.files.items() if key != name}
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        try:
            if name in self.manifest.files:  # the manifest never lists a file whose content it does not know
                self._write_manifest(others)
            _replace(self.path / name, content)
            return self._write_manifest({**others, name: entry})
        except OSError as error:
            raise BundleError(
                f"cannot write {name} into bundle {self.path}: {error}; free space there, allow writing to "
                "it, or copy the bundle to another place"
            ) from error

    def remove_file(self, name: str) -> Bundle:
        """Takes an optional file away, if there, and returns the bundle without it. Raises as `add_file`."""
        if not _is_plain(name) or name in _ESSENTIAL:
            raise ValueError(f"{name!r} is not the name of an optional file of a bundle")
        try:
            bundle = self._write_manifest({k: v for k, v in self.manifest.files.items() if k != name})
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise BundleError(f"cannot remove {name} from bundle {self.path}: {error}") from error
        return bundle

    def _write_manifest(self, files: dict[str, dict[str, Any]]) -> Bundle:
        manifest = dataclasses.replace(self.manifest, files=dict(sorted(files.items())))
        _replace(self.path / MANIFEST, manifest.to_json().encode())
        return Bundle(self.path, manifest)

    def _verify(self) -> None:
        again = "copy it again, or build it again with `mobilevlm build`"
        for name, entry in self.manifest.files.items():
            file = self.path / name
            if not file.is_file():
                raise BundleError(f"bundle {self.path} is incomplete: {name} is missing; {again}")
            size = file.stat().st_size
            if size != entry["bytes"]:
                raise BundleError(
                    f"bundle {self.path}: {name} is {size} bytes instead of {entry['bytes']} "
                    f"(truncated or replaced); {again}"
                )
            if sha256(file) != entry["sha256"]:
                raise BundleError(
                    f"bundle {self.path}: {name} is damaged or altered (sha256 differs); {again}"
                )


def _check_is_bundle(path: Path) -> None:
    if not path.exists():
        raise BundleError(
            f"bundle {path} does not exist; make one with `mobilevlm build CHECKPOINT -o {path}`"
        )
    if not path.is_dir():
        raise BundleError(f"{path} is a file; a bundle is a directory that holds {MANIFEST}")
    if (path / MANIFEST).is_file():
        return
    if (path / "config.json").is_file():
        raise BundleError(
            f"{path} is a checkpoint, not a bundle; run `mobilevlm build {path} -o BUNDLE` and use BUNDLE"
        )
    raise BundleError(
        f"{path} is not a bundle (no {MANIFEST}); make one with `mobilevlm build CHECKPOINT -o {path}`"
    )


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, down to the disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def seal(names: list[str], directory: Path) -> dict[str, dict[str, Any]]:
    """The manifest's `files` entry for `names` in `directory`."""
    return {
        name: {"bytes": (directory / name).stat().st_size, "sha256": sha256(directory / name)}
        for name in sorted(names)
    }
