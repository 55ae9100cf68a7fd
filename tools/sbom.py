# SPDX-License-Identifier: Apache-2.0
"""What an installation is made of: a CycloneDX list of its packages, and a table of their licences.

    python tools/sbom.py -o sbom.json [--extras typed,server] [--requirements pinned.txt]

Reads the metadata of the packages that are installed beside mobilevlm_ros; needs no network.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import cast

from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot5
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PRODUCT = "mobilevlm_ros"
UNKNOWN = "UNKNOWN"

SHORT = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "ISC License (ISCL)": "ISC",
}
"""Trove classifiers in SPDX's words, where they are exact enough for that."""


def metadata(found: Distribution) -> Message:
    """Of a package; typeshed's own protocol lacks the methods of a message."""
    return cast(Message, found.metadata)


def licence(found: Distribution) -> str:
    """A package's licence as its metadata says it: the SPDX expression, else the classifiers, else the text.

    'UNKNOWN' where it says none.
    """
    told = metadata(found)
    if expression := told.get("License-Expression"):
        return str(expression)
    names = [
        text.rpartition(" :: ")[2] for text in told.get_all("Classifier") or [] if text.startswith("License")
    ]
    if names:
        return " AND ".join(SHORT.get(name, name) for name in names)
    line = str(told.get("License") or "").strip().splitlines()[:1]
    return line[0][:60] if line and line[0] else UNKNOWN


def closure(extras: Sequence[str]) -> list[Distribution]:
    """The packages that mobilevlm_ros with these extras brings in, itself first, the rest by name.

    Raises SystemExit where one is not installed.
    """
    known: dict[str, tuple[Distribution, set[str]]] = {}
    waiting = [(PRODUCT, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        key = canonicalize_name(name)
        if key in known and extra in known[key][1]:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(
                f"{name} is not installed: run `make setup`, or `pip install '.[{','.join(extras)}]'`"
            ) from None
        known.setdefault(key, (found, set()))[1].add(extra)
        waiting += _required(found, extra)
    first = canonicalize_name(PRODUCT)
    return [known[key][0] for key in sorted(known, key=lambda key: (key != first, key))]


def _required(found: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    for text in found.requires or []:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            yield wanted.name, ""
            yield from ((wanted.name, more) for more in wanted.extras)


def component(found: Distribution, kind: ComponentType = ComponentType.LIBRARY) -> Component:
    """The CycloneDX component of a package."""
    name = metadata(found)["Name"]
    purl = PackageURL("pypi", None, canonicalize_name(name), found.version)
    made = Component(name=name, version=found.version, type=kind, purl=purl, bom_ref=purl.to_string())
    made.licenses.add(DisjunctiveLicense(name=licence(found)))
    for text in metadata(found).get_all("Project-URL") or []:
        label, _, url = text.partition(",")
        if re.search(r"source|repository|homepage", label, re.IGNORECASE) and url.strip():
            reference = ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(url.strip()))
            made.external_references.add(reference)
            break
    return made


def bill(packages: Sequence[Distribution]) -> str:
    """The CycloneDX 1.5 document, JSON, of the packages; the first is what the others belong to."""
    made = Bom()
    made.metadata.component = root = component(packages[0], ComponentType.APPLICATION)
    parts = [component(found) for found in packages[1:]]
    for part in parts:
        made.components.add(part)
    made.register_dependency(root, parts)
    return str(JsonV1Dot5(made).output_as_string(indent=1))


def main(args: list[str] | None = None) -> int:
    """Entry point; 1 where a package names no licence."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--extras", default="typed", help="of mobilevlm_ros, with commas (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="for the CycloneDX document")
    parser.add_argument("--requirements", type=Path, metavar="FILE", help="for a list of names and versions")
    options = parser.parse_args(args)
    packages = closure([extra for extra in options.extras.split(",") if extra])
    rows = [(metadata(found)["Name"], found.version, licence(found)) for found in packages]
    if options.output:
        options.output.write_text(bill(packages) + "\n")
    if options.requirements:
        options.requirements.write_text("".join(f"{name}=={version}\n" for name, version, _ in rows[1:]))
    width = max(len(name) for name, _, _ in rows)
    for name, version, terms in rows:
        print(f"{name:{width}}  {version:16}  {terms}")
    unknown = [name for name, _, terms in rows if terms == UNKNOWN]
    if unknown:
        print(f"no licence in the metadata of: {', '.join(unknown)}", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
