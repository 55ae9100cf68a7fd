# SPDX-License-Identifier: Apache-2.0
"""tools/make_keystore.py: what openssl verifies, and what it does not touch."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "config" / "security" / "policy.xml"
if shutil.which("openssl") is None:
    pytest.skip("openssl is not installed", allow_module_level=True)


def make(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "make_keystore.py"), "--openssl", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def openssl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("security") / "keystore"
    done = make(path, "--domain", 7)
    assert done.returncode == 0, done.stderr
    assert f"ROS_SECURITY_KEYSTORE={path}" in done.stdout
    return path


def paths() -> list[str]:
    return [enclave.attrib["path"] for enclave in ElementTree.parse(POLICY).iter("enclave")]


def test_each_enclave_has_what_the_middleware_looks_for(keystore: Path) -> None:
    for path in paths():
        folder = keystore / "enclaves" / path.strip("/")
        names = (
            "identity_ca.cert.pem",
            "permissions_ca.cert.pem",
            "cert.pem",
            "key.pem",
            "governance.p7s",
            "permissions.p7s",
        )
        assert all((folder / name).resolve().is_file() for name in names)  # as rcl reads them, links or not
        ca = keystore / "public" / "ca.cert.pem"
        assert openssl("verify", "-CAfile", ca, folder / "cert.pem").returncode == 0
        subject = openssl(
            "x509", "-in", folder / "cert.pem", "-noout", "-subject", "-nameopt", "rfc2253"
        ).stdout
        assert subject.strip() == f"subject=CN={path}"
        for name in ("permissions.p7s", "governance.p7s"):
            told = openssl("smime", "-verify", "-text", "-in", folder / name, "-CAfile", ca)
            assert told.returncode == 0 and "<id>7</id>" in told.stdout, told.stderr
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600


def test_the_permissions_are_the_policy_in_words_of_dds(keystore: Path) -> None:
    grant = ElementTree.parse(keystore / "enclaves" / "client" / "permissions.xml")
    assert grant.findtext(".//subject_name") == "CN=/client" and grant.findtext(".//default") == "DENY"
    sent = {str(topic.text) for topic in grant.iterfind(".//publish/topics/topic")}
    heard = {str(topic.text) for topic in grant.iterfind(".//subscribe/topics/topic")}
    assert {
        "ros_discovery_info",
        "rq/ask_imageRequest",
        "rq/ask/_action/send_goalRequest",
        "rt/rosout",
    } <= sent
    assert {
        "ros_discovery_info",
        "rr/ask_imageReply",
        "rt/ask/_action/feedback",
        "rr/ask/_action/get_resultReply",
    } <= heard
    assert not any("reload_bundle" in topic or topic.startswith("rt/image") for topic in sent | heard)


def test_a_second_run_keeps_keys_and_makes_permissions_anew(keystore: Path, tmp_path: Path) -> None:
    folder = keystore / "enclaves" / "watcher"
    key, authority = (folder / "key.pem").read_bytes(), (keystore / "private" / "ca.key.pem").read_bytes()
    edited = tmp_path / "policy.xml"
    edited.write_text(POLICY.read_text().replace("/mobilevlm/monitors</topic>", "/other/monitors</topic>"))
    assert make(keystore, "--policy", edited, "--domain", 7).returncode == 0
    assert (folder / "key.pem").read_bytes() == key
    assert (keystore / "private" / "ca.key.pem").read_bytes() == authority
    assert "rt/other/monitors" in (folder / "permissions.xml").read_text()


def test_a_directory_of_somebody_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = make(tmp_path)
    assert done.returncode == 1 and "holds something else" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("<policy", "<polic"), "cannot be read"),
        (("<topic>/rosout</topic>", "<topic>rosout</topic>"), "does not begin with /"),
        (('publish="ALLOW"', 'publish="DENY"'), "only ALLOW is known"),
        (('publish="ALLOW"', 'shout="ALLOW"'), "is none of publish"),
        (('path="/client"', 'path="/../client"'), "not the path of an enclave"),
    ],
)
def test_a_policy_that_cannot_be_used_is_refused_and_nothing_made(
    tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    policy = tmp_path / "policy.xml"
    policy.write_text(POLICY.read_text().replace(*change))
    done = make(tmp_path / "keystore", "--policy", policy)
    assert done.returncode == 1 and told in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "keystore").exists()
