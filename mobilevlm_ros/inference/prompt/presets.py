# SPDX-License-Identifier: Apache-2.0
"""System prompts with a name, from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mobilevlm_ros.errors import ConfigurationError, OptionError, QuestionError
from mobilevlm_ros.files.small_file import read_small_file
from mobilevlm_ros.files.yaml_errors import yaml_reason
from mobilevlm_ros.files.yaml_words import Loader, plain, text_of
from mobilevlm_ros.inference.validate import check_system_prompt

MAX_PRESETS = 64
MAX_BYTES = 1 << 20
"""Of a presets file."""


class _Twice(yaml.constructor.ConstructorError):
    pass


class _Loader(Loader):
    """YAML that does not let a name stand twice: the first preset would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise _Twice(None, None, f"{name[:40]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Preset:
    """A way to use the model: the text before the conversation, and what it is for."""

    name: str
    system_prompt: str
    description: str = ""


def load_presets(path: str | Path) -> dict[str, Preset]:
    """Presets by name, in the order of the file.

    The file is a mapping `presets:` from each name to `system_prompt` (required) and `description`.

    Raises:
        ConfigurationError: the file cannot be read, or something in it cannot be used; the message names the
            file, the preset and the field.
    """
    path = Path(path)
    try:
        text = read_small_file(path, MAX_BYTES, "presets file").decode("utf-8")
        content = yaml.load(text, _Loader)  # nosec B506
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"presets file {path} cannot be read: it is no UTF-8 text") from error
    except ConfigurationError:
        raise
    except _Twice as error:
        raise ConfigurationError(f"presets file {path} is not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date like 2026-99-99 is a ValueError
        raise ConfigurationError(f"presets file {path} is not YAML: {yaml_reason(error)}") from error
    presets = content.get("presets") if isinstance(content, dict) else None
    if not isinstance(presets, dict) or set(content) != {"presets"}:
        raise ConfigurationError(
            f"presets file {path} must hold one mapping, `presets:`, from names to presets"
        )
    if len(presets) > MAX_PRESETS:
        raise ConfigurationError(
            f"presets file {path} holds {len(presets)} presets: keep {MAX_PRESETS} or fewer"
        )
    read = [_preset(path, name, fields) for name, fields in presets.items()]
    return {preset.name: preset for preset in read}


def _preset(path: Path, name: Any, fields: Any) -> Preset:
    where = f"preset {repr(name)[:42]} in {path}"
    try:
        name = text_of(name)
    except ValueError:
        name = ""
    if not name:
        raise ConfigurationError(f"{where}: a name must be text; put it in quotes")
    if not isinstance(fields, dict) or "system_prompt" not in fields:
        raise ConfigurationError(f"{where} needs a `system_prompt`: the text before the conversation")
    unknown = set(fields) - {"system_prompt", "description"}
    if unknown:
        raise ConfigurationError(
            f"{where} has the unknown field {sorted(map(str, unknown))[0][:40]!r}: "
            "use `system_prompt` and `description`"
        )
    texts = {}
    for field, value in fields.items():
        try:
            texts[field] = text_of(value)
        except ValueError as error:
            kind = type(plain(value)).__name__
            raise ConfigurationError(f"{where}: {field} is {kind}, not text; it {error}") from None
    try:
        prompt = check_system_prompt(texts["system_prompt"])
    except QuestionError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if not prompt:
        raise ConfigurationError(f"{where}: its system_prompt is empty: write it, or remove the preset")
    return Preset(name, prompt, texts.get("description", "").strip())


def system_prompt(text: str, preset: str, presets: Mapping[str, Preset]) -> str:
    """The text that is put before the conversation; empty where neither a text nor a preset is given.

    Raises:
        OptionError: both are given, or there is no such preset.
    """
    if not preset:
        return text
    if text:
        raise OptionError("both system_prompt and preset are given: leave one of them empty")
    if preset not in presets:
        known = ", ".join(map(repr, presets)) or "none"
        raise OptionError(
            f"there is no preset {preset!r}: use one of {known}, or add it to the node's presets_file"
        )
    return presets[preset].system_prompt
