# SPDX-License-Identifier: Apache-2.0
"""Files that come with the package, and a ROS domain for private use. Needs no ROS."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path


def shared_file(*parts: str) -> Path | None:
    """A file of the package's share directory, e.g. shared_file('config', 'fastdds.xml'); None where it is
    missing.

    In a source checkout that is the repository, elsewhere <prefix>/share/mobilevlm_ros.
    """
    here = Path(__file__).resolve()
    roots = [here.parents[2], *(parent / "share" / "mobilevlm_ros" for parent in here.parents)]
    return next((file for root in roots if (file := root.joinpath(*parts)).is_file()), None)


_claims: list[socket.socket] = []


def free_domain(among: Sequence[int] = range(1, 102)) -> int:
    """A ROS_DOMAIN_ID, of 1 to 101 unless told otherwise, that nobody uses on this machine.

    While this process lives, no other gets the same from here.

    DDS puts domain D's ports at 7400 + 250 D, its first participant listens on offset 10 (DDSI-RTPS 2.5,
    9.6.2). Until a participant is there, a socket in Linux's abstract namespace holds the domain.

    Raises:
        RuntimeError: all are taken.
    """
    for domain in random.SystemRandom().sample(among, len(among)):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                claim.bind(f"\0mobilevlm_ros domain {domain}")
                probe.bind(("0.0.0.0", 7400 + 250 * domain + 10))  # nosec B104
            except OSError:
                claim.close()
                continue
        _claims.append(claim)
        return domain
    raise RuntimeError(
        f"every ROS domain from {min(among)} to {max(among)} is in use on this machine: stop some ROS nodes"
    )


def private_environment(base: dict[str, str]) -> dict[str, str]:
    """`base` with a domain of its own on this machine only, and room for raw images in shared memory."""
    environment = dict(base)
    environment["ROS_DOMAIN_ID"] = str(free_domain())
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"  # Jazzy and later
    if base.get("ROS_DISTRO") == "humble":
        environment["ROS_LOCALHOST_ONLY"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    environment.update(profile_environment(environment))
    return environment


def profile_environment(base: Mapping[str, str]) -> dict[str, str]:
    """What gives Fast DDS room for raw images in shared memory (config/fastdds.xml); nothing where `base`
    names a profile already. Other middlewares do not read it.
    """
    profile = shared_file("config", "fastdds.xml")
    # Fast DDS 2 and 3 know it by different names, and 3 warns about the old one.
    old = base.get("ROS_DISTRO") in ("humble", "jazzy")
    known = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
    return {} if profile is None or any(n in base for n in known) else {known[old]: str(profile)}
