# SPDX-License-Identifier: Apache-2.0
"""bundle.json: what a bundle holds, and the names of its files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mobilevlm_ros.engine.manifest_check import find_problem
from mobilevlm_ros.errors import BundleError
from mobilevlm_ros.files.kinds import COUNT, COUNTS, NUMBER, OBJECT, TEXT, TEXT_OBJECT, Kind
from mobilevlm_ros.files.small_file import LFS_ADVICE, LFS_POINTER
from mobilevlm_ros.model.config import MobileVLMConfig

MANIFEST = "bundle.json"
SCHEMA_VERSION = 1
VISION = "vision.onnx"
DECODER = "decoder.onnx"
DECODER_TREE = "decoder.tree.onnx"
PREFILL = "prefill.onnx"
PREFILL_TREE = "prefill.tree.onnx"
EMBEDDINGS = "embeddings.npy"

Aspect = Literal["pad", "crop"]

_LONGEST_NAME = 255  # bytes: of Linux's file systems
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
            "stop_ids": config.eos_token_ids,
            "max_tokens": 512,  # this and greedy decoding are what the official demo uses
            "temperature": 0.0,
            "model": config.to_json_dict(),
        }
        return cls(**{**values, **more})

    def to_json(self) -> str:
        """The text of bundle.json."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}, indent=1) + "\n"

    @property
    def model_id(self) -> str:
        """Name and content hash of the bundle: the manifest holds the sha256 of each file, so its own hash
        covers all.
        """
        return f"{self.name}@{hashlib.sha256(self.to_json().encode()).hexdigest()[:12]}"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Reads bundle.json's text; `where` names it in errors. Raises BundleError."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            if text.startswith(LFS_POINTER.decode()):
                raise BundleError(f"{where} cannot be read: {LFS_ADVICE}") from error
            raise BundleError(f"{where} is not JSON ({error}); build the bundle again") from error
        if not _is_text(data):
            raise BundleError(f"{where} holds characters that are none; build the bundle again")
        if not OBJECT.fits(data):
            raise BundleError(f"{where} is not a bundle manifest; build the bundle again")
        version = data.pop("schema_version", None)
        if version is True or version != SCHEMA_VERSION:
            raise BundleError(
                f"{where} has schema version {version!r}, this mobilevlm_ros reads {SCHEMA_VERSION}; "
                "build the bundle again with `mobilevlm build`, or install the version that made it"
            )
        values: dict[str, Any] = {}
        for entry in dataclasses.fields(cls):
            if entry.name in _OPTIONAL and entry.name not in data:
                continue
            value = data.get(entry.name)
            kind = _KINDS[str(entry.type)]
            if not kind.fits(value):
                raise BundleError(
                    f"{where}: {entry.name} is missing or wrong, expected {kind.name}; build the bundle again"
                )
            values[entry.name] = tuple(value) if isinstance(value, list) else value
        if problem := find_problem(values):
            raise BundleError(f"{where}: {problem}; build the bundle again")
        return cls(**values)


def _is_text(data: object) -> bool:
    """Whether all strings can be printed and sent: JSON may hold halves of surrogate pairs."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _is_files(value: Any) -> bool:
    return OBJECT.fits(value) and all(
        OBJECT.fits(entry)
        and COUNT.fits(entry.get("bytes"))
        and TEXT.fits(entry.get("sha256"))
        and is_plain_name(name)
        for name, entry in value.items()
    )


def is_plain_name(name: str) -> bool:
    """Whether it is a name in the bundle's own directory: a manifest must not make us read elsewhere."""
    try:
        short = len(name.encode()) <= _LONGEST_NAME
    except UnicodeEncodeError:  # half of a pair
        return False
    return short and name == Path(name).name and name not in ("", ".", "..") and "\0" not in name


_KINDS = {
    "str": TEXT,
    "int": COUNT,
    "Aspect": Kind("'pad' or 'crop'", lambda value: value in ("pad", "crop")),
    "float": NUMBER,
    "tuple[int, ...]": COUNTS,
    "dict[str, Any]": OBJECT,
    "dict[str, str]": TEXT_OBJECT,
    "dict[str, dict[str, Any]]": Kind("files with their bytes and sha256", _is_files),
}
"""By the annotation of a field."""
