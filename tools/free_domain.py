# SPDX-License-Identifier: Apache-2.0
"""Find a ROS_DOMAIN_ID that nobody on this machine uses: tests and demos must not hear other robots."""

import random
import socket


def free_domain() -> int:
    """A domain id from 1 to 101 (safe on every platform) whose first participant's port is not taken.

    DDS puts domain D's ports at 7400 + 250 D; the first participant's is at offset 10 (DDSI-RTPS 2.5, 9.6.2).
    """
    domains = list(range(1, 102))
    random.SystemRandom().shuffle(domains)
    for domain in domains:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("0.0.0.0", 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    raise RuntimeError("every ROS domain from 1 to 101 is in use on this machine: stop some ROS nodes")


if __name__ == "__main__":
    print(free_domain())
