"""``datasync policy sign|push``: a policy is signed where its key is, and given to a running cloud by somebody else."""

import json
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any, Protocol

import pytest

from datasync.policy.loading import load

DEMO = Path(__file__).parents[3] / "deploy" / "policies" / "demo.yaml"
PATIENCE_S = 30.0


class RunningSite(Protocol):
    folder: Path

    def url(self, node: str) -> str: ...
    def datasync(self, *words: str, token: str | None = None) -> Any: ...
    def done(self, *words: str, token: str | None = None) -> str: ...


@pytest.fixture
def revised(site: RunningSite, tmp_path: Path) -> Path:
    """The site's policy with the next revision."""
    now = json.loads(site.done("status", "--url", site.url("cloud"), "--json"))["node"]["policy_revision"]
    path = tmp_path / "revised.yaml"
    path.write_text(re.sub(r"^revision: \d+", f"revision: {now + 1}", DEMO.read_text(), flags=re.MULTILINE))
    assert load(path.read_bytes()).revision == now + 1
    return path


def sign(site: RunningSite, policy: Path, *more: str) -> Any:
    key = str(site.folder / "cloud" / "policy-key")
    return site.datasync("policy", "sign", str(policy), "--key", key, "--out", str(policy.with_suffix(".cose")), *more)


def push(site: RunningSite, policy: Path, node: str = "cloud") -> Any:
    return site.datasync("policy", "push", str(policy.with_suffix(".cose")), "--url", site.url(node), "--json")


def test_a_policy_that_was_signed_elsewhere_reaches_the_edges(site: RunningSite, revised: Path) -> None:
    assert sign(site, revised).returncode == 0
    pushed = push(site, revised)
    assert pushed.returncode == 0, pushed.stderr
    wanted = load(revised.read_bytes())
    assert json.loads(pushed.stdout) == {"id": wanted.document.id, "revision": wanted.revision, "digest": wanted.digest}
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        told = json.loads(site.done("status", "--url", site.url("cloud"), "--json"))
        if [edge["policy_revision"] for edge in told["edges"]] == [wanted.revision]:
            return
        time.sleep(0.05)  # other processes are at work: there is nothing to wait on but the clock
    raise AssertionError(f"the edge never said that it follows revision {wanted.revision}: {told['edges']}")


def test_what_a_node_refuses_is_told_to_who_pushes_and_shown_in_its_status(site: RunningSite, revised: Path) -> None:
    assert sign(site, revised).returncode == 0
    assert push(site, revised).returncode == 0
    again = push(site, revised)
    assert (again.returncode, again.stderr.rstrip().endswith("[POLICY_REVISION_STALE]")) == (1, True)
    told = json.loads(site.done("status", "--url", site.url("cloud"), "--json"))["node"]
    assert told["policy_refused"]["code"] == "POLICY_REVISION_STALE"
    assert "POLICY_REVISION_STALE" in site.done("status", "--url", site.url("cloud"))


def test_a_bundle_of_which_a_byte_was_changed_is_refused(site: RunningSite, revised: Path) -> None:
    assert sign(site, revised).returncode == 0
    bundle = revised.with_suffix(".cose")
    bundle.write_bytes(bundle.read_bytes().replace(b"\nid: ", b"\nID: ", 1))
    refused = push(site, revised)
    assert refused.stderr.rstrip().endswith("[SIGNATURE_INVALID]")


def test_a_nodes_own_key_signs_no_policy(site: RunningSite, revised: Path) -> None:
    out = str(revised.with_suffix(".cose"))
    for node in ("cloud", "edge"):
        key = str(site.folder / node / "identity")
        refused = site.datasync("policy", "sign", str(revised), "--key", key, "--out", out)
        assert (refused.returncode, refused.stderr.rstrip().endswith("[CONFIG_INVALID]")) == (1, True)
    assert not Path(out).exists()


def test_a_file_that_was_changed_since_it_was_reviewed_is_not_signed(site: RunningSite, revised: Path) -> None:
    digest = json.loads(site.done("policy", "check", str(revised), "--json"))["digest"]
    revised.write_text(revised.read_text().replace("\nid: ", "\nid: not-", 1))
    refused = sign(site, revised, "--digest", digest)
    assert (refused.returncode, refused.stderr.rstrip().endswith("[POLICY_DIGEST_MISMATCH]")) == (1, True)
    changed = json.loads(site.done("policy", "check", str(revised), "--json"))["digest"]
    assert sign(site, revised, "--digest", changed).returncode == 0


def test_a_policy_that_does_not_load_is_not_signed(site: RunningSite, revised: Path) -> None:
    revised.write_text(revised.read_text().replace("kind: stream", "kind: river", 1))
    refused = sign(site, revised)
    assert refused.returncode == 1
    assert not revised.with_suffix(".cose").exists()


def test_a_bundle_is_never_overwritten(site: RunningSite, revised: Path) -> None:
    shutil.copy(revised, revised.with_suffix(".cose"))
    assert sign(site, revised).stderr.rstrip().endswith("[CONFIG_INVALID]")
    assert revised.with_suffix(".cose").read_bytes() == revised.read_bytes()


def test_a_policy_key_is_its_owners_alone_and_of_its_operator(site: RunningSite, tmp_path: Path) -> None:
    authority, folder = str(site.folder / "authority"), tmp_path / "key"
    made = site.done("enroll", "policy-key", "acme/second", "--authority", authority, "--folder", str(folder))
    assert f'policy_key = "{folder}"\n' in made
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    for name in ("borealis/policy", "policy"):
        refused = site.datasync(
            "enroll", "policy-key", name, "--authority", authority, "--folder", str(tmp_path / "no")
        )
        assert refused.stderr.rstrip().endswith("[CONFIG_INVALID]")


def test_consent_is_listed_at_an_edge_and_said_nowhere_but_at_the_device(site: RunningSite) -> None:
    assert "no stream has a consent here" in site.done("consent", "list", "--url", site.url("edge"))
    refused = site.datasync("consent", "give", "improve.train", "--url", site.url("edge"))
    assert (refused.returncode, refused.stderr.rstrip().endswith("[CONSENT_FOREIGN]")) == (1, True)
