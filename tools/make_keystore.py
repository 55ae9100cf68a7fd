# SPDX-License-Identifier: Apache-2.0
"""Keys, certificates and signed permissions for every enclave of config/security/policy.xml (SROS2).

    python tools/make_keystore.py KEYSTORE [--policy my_policy.xml] [--domain 7]

Where `ros2 security` is installed, it does the work; elsewhere the program openssl, into the same files
(docs/security.md). Run it again after an edit of the policy: keys that are there stay, permissions are made
anew.
"""

from __future__ import annotations

import argparse
import html
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from xml.etree import ElementTree as Xml  # nosec B405

SECURITY = Path(__file__).resolve().parents[1] / "config" / "security"
DAYS = 3650
"""Of certificates and permissions, as `ros2 security` has it."""

ACTION_SERVICES = ("cancel_goal", "get_result", "send_goal")
ACTION_TOPICS = ("feedback", "status")
GRAPH = "ros_discovery_info"
"""Topic by which the nodes of DDS participants are told."""

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
"""DDS Security 1.1, section 9.3.1."""

PERMISSIONS = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
     xsi:noNamespaceSchemaLocation="http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_permissions.xsd">
  <permissions>
    <grant name="{path}">
      <subject_name>CN={path}</subject_name>
      <validity><not_before>{begin}</not_before><not_after>{end}</not_after></validity>
      <allow_rule>
        <domains><id>{domain}</id></domains>
        <publish><topics>
{publish}
        </topics></publish>
        <subscribe><topics>
{subscribe}
        </topics></subscribe>
      </allow_rule>
      <default>DENY</default>
    </grant>
  </permissions>
</dds>
"""


class Trouble(Exception):
    """A keystore that cannot be made; the message says why."""


def dds_topics(enclave: Xml.Element) -> tuple[set[str], set[str]]:
    """The topics of DDS that an enclave publishes and subscribes to, as ROS 2 names them (design article
    "Topic and Service name mapping to DDS": rt for topics, rq and rr for requests and responses).
    """
    publish, subscribe = {GRAPH}, {GRAPH}
    for rule in enclave.iterfind("profiles/profile/*"):
        for name in (str(entry.text).strip() for entry in rule):
            if not name.startswith("/"):
                raise Trouble(
                    f"{enclave.get('path')}: the name {name!r} does not begin with /: write it whole"
                )
            for role, given in rule.attrib.items():
                if given != "ALLOW":
                    raise Trouble(
                        f"{enclave.get('path')}: {role}={given!r}: only ALLOW is known, all else is denied"
                    )
                sent, heard = _of(role, name)
                publish.update(sent)
                subscribe.update(heard)
    return publish, subscribe


def _of(role: str, name: str) -> tuple[list[str], list[str]]:
    """What a role sends and hears."""
    request, reply = [f"rq{name}Request"], [f"rr{name}Reply"]
    asked = [f"rq{name}/_action/{part}Request" for part in ACTION_SERVICES]
    answered = [f"rr{name}/_action/{part}Reply" for part in ACTION_SERVICES]
    told = [f"rt{name}/_action/{part}" for part in ACTION_TOPICS]
    roles: dict[str, tuple[list[str], list[str]]] = {
        "publish": ([f"rt{name}"], []),
        "subscribe": ([], [f"rt{name}"]),
        "request": (request, reply),
        "reply": (reply, request),
        "call": (asked, answered + told),
        "execute": (answered + told, asked),
    }
    if role not in roles:
        raise Trouble(f"{role!r} of {name} is none of {', '.join(roles)}")
    return roles[role]


def enclaves(policy: Path) -> Iterator[tuple[str, Xml.Element]]:
    """Path and element of every enclave."""
    try:
        root = Xml.parse(policy).getroot()  # nosec B314
    except (OSError, Xml.ParseError) as error:
        raise Trouble(f"the policy {policy} cannot be read: {error}") from error
    found = root.findall("enclaves/enclave")
    if not found:
        raise Trouble(f"the policy {policy} holds no enclaves/enclave")
    for enclave in found:
        path = enclave.get("path", "")
        if (
            not path.startswith("/")
            or ".." in path
            or not path.strip("/").replace("/", "").replace("_", "").isalnum()
        ):
            raise Trouble(f"{policy}: {path!r} is not the path of an enclave: give letters, digits, _ and /")
        yield path, enclave


def permissions(path: str, enclave: Xml.Element, domain: int, now: datetime) -> str:
    """The document of DDS Security 1.1, section 9.4.1.3."""
    publish, subscribe = dds_topics(enclave)

    def listed(topics: set[str]) -> str:
        return "\n".join(f"          <topic>{html.escape(topic)}</topic>" for topic in sorted(topics))

    begin, end = now - timedelta(days=1), now + timedelta(days=DAYS)
    return PERMISSIONS.format(
        path=html.escape(path),
        begin=begin.isoformat(timespec="seconds"),
        end=end.isoformat(timespec="seconds"),
        domain=domain,
        publish=listed(publish),
        subscribe=listed(subscribe),
    )


class Keystore:
    """The directory that ROS_SECURITY_KEYSTORE names, in the layout of `ros2 security`, made by openssl."""

    def __init__(self, path: Path) -> None:
        if path.exists() and any(path.iterdir()) and not (path / "public" / "ca.cert.pem").is_file():
            raise Trouble(f"{path} holds something else than a keystore: give another directory")
        self.path = path
        self.public, self.private, self.made = path / "public", path / "private", path / "enclaves"
        for folder in (self.public, self.private, self.made):
            folder.mkdir(parents=True, exist_ok=True)
        self.private.chmod(0o700)
        self.cert, self.key = self.public / "ca.cert.pem", self.private / "ca.key.pem"
        if not self.key.is_file():
            self._openssl(
                "req",
                "-x509",
                *CURVE,
                "-keyout",
                self.key,
                "-out",
                self.cert,
                "-days",
                DAYS,
                "-subj",
                "/CN=sros2CA",
            )
            self.key.chmod(0o600)
        for kind in ("identity_ca", "permissions_ca"):
            _link(self.public / f"{kind}.cert.pem", "ca.cert.pem")
            _link(self.private / f"{kind}.key.pem", "ca.key.pem")

    def govern(self, domain: int) -> None:
        """Write and sign what holds for the domain."""
        text = (SECURITY / "governance.xml").read_text().replace("<id>0</id>", f"<id>{domain}</id>")
        self._sign(self.made / "governance", text)

    def add(self, path: str, document: str) -> None:
        """An enclave: its key and certificate where it has none, and its permissions."""
        folder = self.made / path.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(path.strip("/").split("/")) + 1)
        for name in ("identity_ca.cert.pem", "permissions_ca.cert.pem"):
            _link(folder / name, f"{up}public/{name}")
        _link(folder / "governance.p7s", f"{up}enclaves/governance.p7s")
        key, cert, wish = folder / "key.pem", folder / "cert.pem", folder / "request.pem"
        if not (key.is_file() and cert.is_file()):
            subject = "/CN=" + path.replace("/", "\\/")
            self._openssl("req", "-new", *CURVE, "-keyout", key, "-out", wish, "-subj", subject)
            key.chmod(0o600)
            signer = ("-CA", self.cert, "-CAkey", self.key, "-CAcreateserial")
            self._openssl("x509", "-req", "-in", wish, *signer, "-days", DAYS, "-out", cert)
            wish.unlink()
        self._sign(folder / "permissions", document)

    def _sign(self, stem: Path, text: str) -> None:
        plain, signed = stem.with_suffix(".xml"), stem.with_suffix(".p7s")
        plain.write_text(text)
        signer = ("-signer", self.cert, "-inkey", self.key)
        self._openssl("smime", "-sign", "-text", "-in", plain, "-out", signed, *signer)

    @staticmethod
    def _openssl(*arguments: object) -> None:
        _run(["openssl", *map(str, arguments)])


def _link(path: Path, target: str) -> None:
    if not path.is_symlink():
        path.symlink_to(target)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Trouble(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-500:]}")


def by_ros2(keystore: Path, policy: Path, paths: list[str]) -> None:
    """The same by SROS2's own commands."""
    security = ["ros2", "security"]
    if not (keystore / "public").is_dir():
        _run([*security, "create_keystore", str(keystore)])
    for path in paths:
        if not (keystore / "enclaves" / path.strip("/") / "key.pem").is_file():
            _run([*security, "create_enclave", str(keystore), path])
        _run([*security, "create_permission", str(keystore), path, str(policy)])


def main(args: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "keystore", type=Path, metavar="KEYSTORE", help="directory to make, or to bring up to date"
    )
    parser.add_argument("--policy", type=Path, default=SECURITY / "policy.xml", metavar="FILE")
    parser.add_argument("--domain", type=int, help="ROS domain (default: ROS_DOMAIN_ID, or 0)")
    parser.add_argument(
        "--openssl", action="store_true", help="use openssl even where `ros2 security` is there"
    )
    options = parser.parse_args(args)
    domain = int(os.environ.get("ROS_DOMAIN_ID") or 0) if options.domain is None else options.domain
    try:
        found = list(enclaves(options.policy))
        if not options.openssl and shutil.which("ros2"):
            os.environ["ROS_DOMAIN_ID"] = str(domain)
            by_ros2(options.keystore, options.policy, [path for path, _ in found])
        elif shutil.which("openssl"):
            now = datetime.now(timezone.utc).replace(tzinfo=None)
            documents = [(path, permissions(path, enclave, domain, now)) for path, enclave in found]
            keystore = Keystore(options.keystore)
            keystore.govern(domain)
            for path, document in documents:
                keystore.add(path, document)
        else:
            raise Trouble("neither `ros2 security` nor openssl is installed: sudo apt install openssl")
    except (Trouble, OSError) as error:
        print(f"make_keystore: error: {error}", file=sys.stderr)
        return 1
    print(f"{options.keystore}: {', '.join(path for path, _ in found)}")
    enforce = "ROS_SECURITY_ENABLE=true ROS_SECURITY_STRATEGY=Enforce"
    print(f"export ROS_SECURITY_KEYSTORE={options.keystore.resolve()} {enforce}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
