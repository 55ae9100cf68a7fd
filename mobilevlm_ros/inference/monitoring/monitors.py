# SPDX-License-Identifier: Apache-2.0
"""Monitors: standing questions about cameras, as a YAML file declares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mobilevlm_ros.errors import ConfigurationError, QuestionError
from mobilevlm_ros.files.kinds import FLAG, LIST, NUMBER, TEXT
from mobilevlm_ros.files.small_file import read_small_file
from mobilevlm_ros.files.yaml_errors import yaml_reason
from mobilevlm_ros.files.yaml_words import Misread, noticed, plain, text_of
from mobilevlm_ros.inference.types import Request
from mobilevlm_ros.inference.validate import MAX_QUESTION, check_choices, check_system_prompt, clean_text

MAX_MONITORS = 64
MAX_NAME = 64
"""Characters in a monitor's name."""

MAX_BYTES = 1 << 20
"""Size of the file; 64 monitors with the longest questions are far below."""

RATES = (0.001, 20.0)
"""Evaluations per second."""

LONGEST_HOLD = 86400.0
"""Of hold_time, seconds."""

SEVERITIES = ("ok", "warn", "error")


@dataclass(frozen=True)
class Monitor:
    """One monitor. The fields are those of the file, where config/monitors.yaml explains them.

    Attributes:
        cameras: names; '*' stands for all, '' for the node's default camera. After `resolve`: exactly one.
        rate: evaluations per second (> 0).
        threshold_up, threshold_down: probabilities, 0 <= down < up <= 1.
        hold_time: seconds of the pictures' clock (>= 0).
        raised: those of the choices that raise it.
        max_age: of a picture, seconds; negative = any, None = the node's parameter.
    """

    name: str
    question: str
    cameras: tuple[str, ...] = ("",)
    rate: float = 1.0
    threshold_up: float = 0.7
    threshold_down: float = 0.3
    hold_time: float = 0.0
    choices: tuple[str, ...] = ("yes", "no")
    raised: tuple[str, ...] = ("yes",)
    evidence: bool = False
    severity: str = "warn"
    system_prompt: str = ""
    max_age: float | None = None

    @property
    def request(self) -> Request:
        """What the model is asked."""
        return Request(self.question, choices=self.choices, system_prompt=self.system_prompt)

    def probability(self, odds: Sequence[float]) -> float:
        """That it is raised, 0 to 1, from the probability of each choice."""
        total = sum(p for choice, p in zip(self.choices, odds) if choice in self.raised)
        return min(1.0, max(0.0, total))


def resolve(monitors: Sequence[Monitor], cameras: Sequence[str]) -> list[Monitor]:
    """One monitor for each camera that is meant, in the order of the file.

    Args:
        monitors: as loaded.
        cameras: names of the configured cameras, the default one first.

    Raises:
        ConfigurationError: a monitor names a camera that is not configured.
    """
    single = []
    for monitor in monitors:
        names = [name for meant in monitor.cameras for name in (cameras if meant == "*" else (meant,))]
        for name in names:
            if name and name not in cameras:
                known = ", ".join(map(repr, cameras))
                raise ConfigurationError(
                    f"monitor {monitor.name!r}: no camera {name!r} is configured: use one of {known}, '*' "
                    "for all, or add it to the parameter `cameras`"
                )
        chosen = dict.fromkeys(name if name in cameras else cameras[0] for name in names)
        single += [replace(monitor, cameras=(name,)) for name in chosen]
    if len(single) > MAX_MONITORS:
        raise ConfigurationError(f"{len(single)} monitors, counted per camera: keep {MAX_MONITORS} or fewer")
    return single


def load_monitors(path: str | Path) -> list[Monitor]:
    """The monitors of a YAML file, in its order.

    Raises:
        ConfigurationError: with the file, the line, the field, and what to do.
    """
    return parse_monitors(read_small_file(path, MAX_BYTES, "monitors file"), str(path))


def parse_monitors(content: bytes, name: str = "monitors.yaml") -> list[Monitor]:
    """The monitors of a YAML text; `name` is that of the file, for messages. Raises as `load_monitors`."""
    if len(content) > MAX_BYTES:
        raise ConfigurationError(
            f"monitors file {name} has more than {MAX_BYTES} bytes: is it the right one?"
        )
    try:
        root = yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = yaml_reason(error)  # never a line of the file, which may be another one by mistake
        raise ConfigurationError(f"monitors file {name} is not YAML: {reason}") from error
    reader = _Reader(name)
    if root is None:
        raise reader.error(None, "the file is empty: write `monitors: []` for none")
    fields = reader.mapping(root, ("monitors",), "the file")
    if "monitors" not in fields:
        raise reader.error(root, "there is no list `monitors`: begin the file with `monitors:`")
    entries = fields["monitors"]
    if not isinstance(entries, yaml.SequenceNode):
        raise reader.error(entries, "`monitors` must be a list: begin each monitor with `- name: ...`")
    if len(entries.value) > MAX_MONITORS:
        raise reader.error(entries, f"{len(entries.value)} monitors: keep {MAX_MONITORS} or fewer")
    monitors = [reader.monitor(node) for node in entries.value]
    for repeated, count in Counter(monitor.name for monitor in monitors).items():
        if count > 1:
            raise reader.error(entries, f"{count} monitors are called {repeated!r}: give each its own name")
    return monitors


class _Reader:
    """Values out of YAML nodes, which know their lines."""

    def __init__(self, file: str) -> None:
        self._file = file

    def error(self, node: yaml.Node | None, text: str) -> ConfigurationError:
        line = "" if node is None else f", line {node.start_mark.line + 1}"
        return ConfigurationError(f"monitors file {self._file}{line}: {text}")

    def mapping(self, node: yaml.Node, known: Sequence[str], what: str) -> dict[str, yaml.Node]:
        """The values of a mapping; unknown and repeated keys are refused."""
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, f"{what} must hold `field: value` lines")
        fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            if name not in known:
                raise self.error(key, f"{what} has the unknown field {name!r}: use {', '.join(known)}")
            if name in fields:
                raise self.error(key, f"{what} has the field {name!r} twice: remove one")
            fields[name] = value
        return fields

    def monitor(self, node: yaml.Node) -> Monitor:
        nodes = self.mapping(node, tuple(_FIELDS), "a monitor")
        for needed in ("name", "question"):
            if needed not in nodes:
                raise self.error(node, f"a monitor has no `{needed}`: add it")
        values: dict[str, Any] = {}
        for field, value in nodes.items():
            target, read = _FIELDS[field]
            try:
                values[target] = read(self._value(value, field))
            except QuestionError as error:
                raise self.error(value, f"{field}: {error}") from error
            except ValueError as error:
                raise self.error(value, f"{field} {error}") from error
        monitor = Monitor(**values)
        self._check(monitor, node, nodes)
        return monitor

    def _check(self, monitor: Monitor, node: yaml.Node, nodes: dict[str, yaml.Node]) -> None:
        """What the fields must be together."""
        up, down = monitor.threshold_up, monitor.threshold_down
        if down >= up:
            at = nodes.get("threshold_down", nodes.get("threshold_up", node))
            raise self.error(
                at,
                f"threshold_down ({down:g}) must be below threshold_up ({up:g}): the gap keeps the monitor "
                "still",
            )
        unknown = [choice for choice in monitor.raised if choice not in monitor.choices]
        if unknown:
            at = nodes.get("raised", nodes.get("choices", node))
            choices = ", ".join(map(repr, monitor.choices))
            raise self.error(at, f"raised is {unknown[0]!r}: name one of the choices, {choices}")
        if len(monitor.raised) == len(monitor.choices):
            raise self.error(
                nodes.get("raised", node),
                "raised names all choices, so it would always be raised: leave out one",
            )

    def _value(self, node: yaml.Node, field: str) -> Any:
        """A scalar or a list of scalars as Python values."""
        if isinstance(node, yaml.SequenceNode):
            return [self._scalar(item, field) for item in node.value]
        return self._scalar(node, field)

    def _scalar(self, node: yaml.Node, field: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, f"{field} must be a single value or a list of values")
        try:
            return noticed(node, yaml.constructor.SafeConstructor().construct_object(node))
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # an unknown !tag, 2026-99-99
            raise self.error(node, f"{field} cannot be read: put it in quotes if it is text") from error


def _text(value: Any) -> str:
    if isinstance(value, (Misread, bool)):
        return text_of(value)
    if not TEXT.fits(value):
        raise ValueError(f"is {value!r}, not text: put it in quotes")
    return str(value)


def _name(value: Any) -> str:
    return " ".join(clean_text(_text(value), "name", MAX_NAME).split())


def _question(value: Any) -> str:
    return clean_text(_text(value), "question", MAX_QUESTION)


def _texts(value: Any) -> tuple[str, ...]:
    texts = tuple(_text(item) for item in (value if LIST.fits(value) else [value]))
    if not texts:
        raise ValueError("is an empty list: leave it out for the default")
    return tuple(dict.fromkeys(texts))


def _choices(value: Any) -> tuple[str, ...]:
    return check_choices(_texts(value))


def _number(low: float, high: float, what: str) -> Any:
    def read(value: Any) -> float:
        value = value.number if isinstance(value, Misread) else value
        if not NUMBER.fits(value) or not low <= value <= high:
            raise ValueError(f"is {value!r}: give {what}, from {low:g} to {high:g}")
        return float(value)

    return read


def _flag(value: Any) -> bool:
    value = plain(value)
    if not FLAG.fits(value):
        raise ValueError(f"is {value!r}: give {FLAG.name}")
    return bool(value)


def _severity(value: Any) -> str:
    value = plain(value)
    if value not in SEVERITIES:
        raise ValueError(f"is {value!r}: give one of {', '.join(SEVERITIES)}")
    return str(value)


_FIELDS: dict[str, tuple[str, Any]] = {
    "name": ("name", _name),
    "question": ("question", _question),
    "camera": ("cameras", _texts),
    "rate": ("rate", _number(*RATES, "evaluations per second")),
    "threshold_up": ("threshold_up", _number(0.0, 1.0, "a probability")),
    "threshold_down": ("threshold_down", _number(0.0, 1.0, "a probability")),
    "hold_time": ("hold_time", _number(0.0, LONGEST_HOLD, "seconds")),
    "choices": ("choices", _choices),
    "raised": ("raised", _texts),
    "evidence": ("evidence", _flag),
    "severity": ("severity", _severity),
    "system_prompt": ("system_prompt", lambda value: check_system_prompt(_text(value))),
    "max_age": ("max_age", _number(-1.0, 86400.0, "seconds")),
}
"""By the name in the file: the attribute, and what reads the value."""
