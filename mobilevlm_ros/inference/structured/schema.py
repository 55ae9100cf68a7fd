# SPDX-License-Identifier: Apache-2.0
"""What a model writes for a JSON Schema: nothing but the properties that it lists, and numbers that end.

By JSON Schema's default an object may have any other properties, and a small model would invent them without
end; a number may have any number of digits. Whatever conforms to the result conforms to the schema.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.structured.formats import LARGEST

MAX_COPIES = 256
"""Definitions that may be needed in several forms. Schemas that people write need a few."""

MAX_WORK = 200_000
"""Looks at a schema from its neighbours, about a tenth of a second. People's schemas need hundreds."""

_GROUPS = ("allOf", "anyOf", "oneOf")
_ALTERNATIVES = ("anyOf", "oneOf")
_LOW = ("minimum", "exclusiveMinimum", "const", "enum")
_HIGH = ("maximum", "exclusiveMaximum", "const", "enum")


@dataclass
class _Said:
    """What the schemas that describe one value say together.

    Attributes:
        names: of the properties that they list or require, in order, with what they say of each.
        certain: names whose listing holds in any case, not only in an alternative.
        items: what they say of the items of a list.
        open: one of them lets other properties in, or asks for a number of them.
        low, high: one of them bounds a number from below, or above.
    """

    names: dict[str, list[Any]] = field(default_factory=dict)
    certain: set[str] = field(default_factory=set)
    items: list[Any] = field(default_factory=list)
    open: bool = False
    low: bool = False
    high: bool = False

    def add(self, other: _Said, certain: bool = True) -> None:
        """What another schema says too; `certain`: it holds in any case."""
        for name, schemas in other.names.items():
            self.names[name] = [*self.names.get(name, ()), *schemas]
        self.certain |= other.certain if certain else set()
        self.items += other.items
        self.open |= other.open
        self.low |= other.low
        self.high |= other.high

    @property
    def key(self) -> tuple[Any, ...]:
        names = sorted((name, *map(id, schemas)) for name, schemas in self.names.items())
        return (*names, *sorted(self.certain), *sorted(map(id, self.items)), self.open, self.low, self.high)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema whose objects have no other properties than they list, and whose numbers have 15 digits.

    Schemas that describe one value together (`allOf`, `anyOf`, `oneOf`, `$ref`, and what stands beside them)
    are closed together: each lets in what the others list. A schema that says something about other
    properties, or about the range of a number, is taken at its word.

    Raises OptionError where a schema is nested too deep, or its definitions are used in too many ways.
    """
    try:
        return _Closing(schema).result()
    except RecursionError as error:
        raise OptionError("json_schema is nested too deep: simplify it") from error


class _Closing:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[int, _Said] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._copies: dict[str, Any] = {}
        self._work = 0
        own, self._prefix = root.get("$defs"), "closed-"
        while isinstance(own, dict) and any(str(name).startswith(self._prefix) for name in own):
            self._prefix += "-"

    def result(self) -> dict[str, Any]:
        made = self._closed(self._root, _Said())
        if self._copies:
            made["$defs"] = {**made.get("$defs", {}), **self._copies}
        return dict(made)

    def _closed(self, schema: Any, beside: _Said) -> Any:
        """`beside`: what the schemas that describe the same value say."""
        if not isinstance(schema, dict):
            return schema
        made = dict(schema)
        whole = _Said()
        self._add(whole, beside)
        self._add(whole, self._said(schema))
        for key in ("$defs", "definitions", "patternProperties"):
            if isinstance(schema.get(key), dict):
                made[key] = {name: self._closed(part, _Said()) for name, part in schema[key].items()}
        if "additionalProperties" in schema:
            made["additionalProperties"] = self._closed(schema["additionalProperties"], _Said())
        if isinstance(schema.get("properties"), dict):
            made["properties"] = {
                name: self._closed(part, self._neighbours(part, whole.names.get(name, ())))
                for name, part in schema["properties"].items()
            }
        if isinstance(schema.get("items"), dict):
            made["items"] = self._closed(schema["items"], self._neighbours(schema["items"], whole.items))
        if isinstance(schema.get("prefixItems"), list):
            made["prefixItems"] = [
                self._closed(part, self._neighbours(part, whole.items)) for part in schema["prefixItems"]
            ]
        for key in _GROUPS:
            if isinstance(schema.get(key), list):
                made[key] = [
                    self._closed(part, self._around(schema, beside, key, index))
                    for index, part in enumerate(schema[key])
                ]
        if isinstance(schema.get("$ref"), str):
            made["$ref"] = self._reference(schema["$ref"], self._around(schema, beside, "$ref", 0))
        self._close_object(schema, made, whole)
        _bound_number(schema, made, whole)
        return made

    def _neighbours(self, schema: Any, described: Iterable[Any]) -> _Said:
        """What the others say of a property or an item that several schemas describe."""
        whole = _Said()
        for other in {id(other): other for other in described if other is not schema}.values():
            self._add(whole, self._said(other), certain=False)
        return whole

    def _close_object(self, schema: dict[str, Any], made: dict[str, Any], whole: _Said) -> None:
        if not isinstance(schema.get("properties"), dict) or whole.open or "additionalProperties" in schema:
            return
        others = {
            name: self._of_others(schemas, name in whole.certain)
            for name, schemas in whole.names.items()
            if name not in made["properties"]
        }
        made["properties"] = {**made["properties"], **others}
        made["additionalProperties"] = False

    def _of_others(self, schemas: list[Any], certain: bool) -> Any:
        """What a property may be that only the neighbours list: anything, where they say it in any case."""
        if certain or not schemas:
            return True
        each = {id(schema): schema for schema in schemas}.values()
        return {"anyOf": [self._closed(schema, self._neighbours(schema, schemas)) for schema in each]}

    def _around(self, schema: dict[str, Any], beside: _Said, group: str, index: int) -> _Said:
        """What describes the same value as one part of a schema, besides that part itself.

        The alternatives of `anyOf` and `oneOf` do not hold together, so they do not count for each other.
        """
        whole = _Said()
        self._add(whole, beside)
        self._add(whole, self._own(schema))
        for key in (*_GROUPS, "$ref"):
            for at, part in enumerate(self._parts(schema, key)):
                if key != group or (key == "allOf" and at != index):
                    self._add(whole, self._said(part), key not in _ALTERNATIVES)
        return whole

    def _said(self, schema: Any) -> _Said:
        """What a schema says about a value, through all its parts; circles included."""
        if not isinstance(schema, dict):
            return _Said()
        if id(schema) not in self._known:
            seen: dict[int, bool] = {}
            whole, waiting = _Said(), [(schema, True)]
            while waiting:
                part, certain = waiting.pop()
                if not isinstance(part, dict) or (seen.get(id(part), False) >= certain and id(part) in seen):
                    continue
                seen[id(part)] = certain
                self._add(whole, self._own(part), certain)
                for key in ("$ref", *_GROUPS[::-1]):
                    sure = certain and key not in _ALTERNATIVES
                    waiting += [(inner, sure) for inner in self._parts(part, key)[::-1]]
            self._known[id(schema)] = whole
        return self._known[id(schema)]

    def _add(self, whole: _Said, part: _Said, certain: bool = True) -> None:
        self._work += 1 + len(part.names)
        if self._work > MAX_WORK:
            raise OptionError("json_schema composes too many schemas: simplify it")
        whole.add(part, certain)

    def _own(self, schema: dict[str, Any]) -> _Said:
        listed, required = schema.get("properties"), schema.get("required")
        names: dict[str, list[Any]] = {}
        for name, part in listed.items() if isinstance(listed, dict) else ():
            names[name] = [part]
        for name in required if isinstance(required, list) else ():
            names.setdefault(str(name), [])
        prefix = schema["prefixItems"] if isinstance(schema.get("prefixItems"), list) else []
        others = schema.get("additionalProperties", False) is not False
        counted = bool(schema.keys() & {"patternProperties", "minProperties"})
        unknown = isinstance(schema.get("$ref"), str) and self._target(schema["$ref"]) is None
        return _Said(
            names,
            set(names),
            [part for part in (schema.get("items"), *prefix) if isinstance(part, dict)],
            others or counted or unknown,
            bool(schema.keys() & set(_LOW)),
            bool(schema.keys() & set(_HIGH)),
        )

    def _parts(self, schema: dict[str, Any], key: str) -> list[Any]:
        value = schema.get(key)
        if key == "$ref":
            return [self._target(value)] if isinstance(value, str) else []
        return value if isinstance(value, list) else []

    def _reference(self, reference: str, around: _Said) -> str:
        """The reference itself, or one to a copy of its target, closed together with its neighbours."""
        target = self._target(reference)
        if target is None or around.key == _Said().key:
            return reference
        key = (reference, *around.key)
        if key not in self._names:
            if len(self._names) == MAX_COPIES:
                raise OptionError("json_schema uses its definitions in too many ways: simplify it")
            self._names[key] = name = f"{self._prefix}{len(self._names) + 1}"
            self._copies[name] = self._closed(target, around)
        return f"#/$defs/{self._names[key]}"

    def _target(self, reference: str) -> dict[str, Any] | None:
        """What a reference within the schema points to; None where that is not known."""
        if not reference.startswith("#"):
            return None
        found: Any = self._root
        for step in reference[1:].split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                return None
        return found if isinstance(found, dict) and reference[1:2] in ("", "/") else None


def _bound_number(schema: dict[str, Any], made: dict[str, Any], whole: _Said) -> None:
    """A range of 15 digits for a number that has none, as 'integer' and 'number' have it."""
    kinds = schema.get("type")
    if not {"integer", "number"} & set(kinds if isinstance(kinds, list) else [str(kinds)]):
        return
    least, most = -int(LARGEST), int(LARGEST)
    if not whole.low and not _beyond(schema, ("maximum", "exclusiveMaximum"), least):
        made["minimum"] = least
    if not whole.high and not _beyond(schema, ("minimum", "exclusiveMinimum"), most):
        made["maximum"] = most


def _beyond(schema: dict[str, Any], keys: tuple[str, ...], bound: int) -> bool:
    """Whether a limit of the schema leaves nothing on this side of the bound."""
    limits = [schema[key] for key in keys if isinstance(schema.get(key), (int, float))]
    return any(limit >= bound if bound > 0 else limit <= bound for limit in limits)
