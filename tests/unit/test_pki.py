"""The certificates that `lockgate pki` makes, judged by OpenSSL, which is what every program here judges them by."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mapping import cli
from mapping.certificates import ROLES
from mapping.errors import MappingError
from mapping.pki import Pki


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    made = Pki(tmp_path / "pki")
    made.init()
    return made


def refused(trust: Path, authority: str, holder: Path, purpose: str = "sslclient") -> str:
    """Why somebody who has the trust files in `trust` refuses this certificate; empty if it is accepted."""
    argv = ["openssl", "verify", "-CAfile", f"{trust}/{authority}.pem", "-purpose", purpose, f"{holder}/cert.pem"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def test_each_role_is_believed_by_its_own_authority_only_and_serves_only_if_it_should(pki: Pki, tmp_path: Path) -> None:
    for role in ROLES:
        pki.issue(role, "same-name", tmp_path / role)
    for role in ROLES:
        believed = [other for other in ROLES if not refused(tmp_path / "host", other, tmp_path / role)]
        assert believed == [role]
        serves = not refused(tmp_path / "host", role, tmp_path / role, "sslserver")
        assert serves == (role in ("member", "controller"))


def test_revoked_means_that_one_certificate_and_no_other(pki: Pki, tmp_path: Path) -> None:
    for name in ("a", "ab"):
        pki.issue("host", name, tmp_path / name)
    pki.revoke("host", "a")
    trust = tmp_path / "trust"
    pki.issue("host", "a", tmp_path / "again")
    pki.write_trust(trust)
    assert "excluded subtree violation" in refused(trust, "host", tmp_path / "a")
    assert not refused(trust, "host", tmp_path / "again")
    assert not refused(trust, "host", tmp_path / "ab")
    assert not refused(tmp_path / "ab", "host", tmp_path / "a")  # whoever has not got the new trust files
    pki.revoke("host", "a")
    pki.write_trust(trust)
    assert refused(trust, "host", tmp_path / "a")
    assert refused(trust, "host", tmp_path / "again")
    assert sorted((each.name, each.state) for each in pki.show()) == [
        ("a", "revoked"),
        ("a", "revoked"),
        ("ab", "valid"),
    ]
    with pytest.raises(MappingError, match="no valid certificate of host a: `lockgate pki show`"):
        pki.revoke("host", "a")


def test_a_rotation_believes_both_until_it_is_finished_and_forgets_no_revocation(pki: Pki, tmp_path: Path) -> None:
    for name in ("old", "revoked"):
        pki.issue("host", name, tmp_path / name)
    with pytest.raises(MappingError, match="one authority only"):
        pki.rotate("host", finish=True)
    pki.rotate("host", finish=False)
    with pytest.raises(MappingError, match="--finish"):
        pki.rotate("host", finish=False)
    pki.revoke("host", "revoked")
    pki.issue("host", "new", tmp_path / "new")
    trust = tmp_path / "new"
    assert [bool(refused(trust, "host", tmp_path / name)) for name in ("old", "new", "revoked")] == [False, False, True]
    pki.rotate("host", finish=True)
    pki.write_trust(trust)
    assert [bool(refused(trust, "host", tmp_path / name)) for name in ("old", "new", "revoked")] == [True, False, True]
    assert {each.name: each.state for each in pki.show()} == {
        "old": "superseded",
        "new": "valid",
        "revoked": "revoked",
    }


def test_an_expired_one_is_refused(pki: Pki, tmp_path: Path) -> None:
    pki.issue("host", "late", tmp_path / "late", days=1, ago=2)
    assert "certificate has expired" in refused(tmp_path / "late", "host", tmp_path / "late")
    assert [each.state for each in pki.show()] == ["expired"]


def test_keys_are_their_keepers(pki: Pki, tmp_path: Path) -> None:
    pki.issue("host", "a", tmp_path / "a")
    secret = [file for file in tmp_path.rglob("*.pem") if b"PRIVATE" in file.read_bytes()]
    assert len(secret) == len(ROLES) + 1
    assert all(file.stat().st_mode & 0o77 == 0 for file in secret)
    assert pki.folder.stat().st_mode & 0o77 == 0


def test_what_is_refused_says_what_to_do(pki: Pki, tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="holds authorities already"):
        pki.init()
    with pytest.raises(MappingError, match="is no name"):
        pki.issue("host", "a:b", tmp_path)
    for do in (Pki(tmp_path / "none").show, lambda: Pki(tmp_path / "none").revoke("host", "a")):
        with pytest.raises(MappingError, match="lockgate pki init"):
            do()
    (tmp_path / "file").touch()
    with pytest.raises(MappingError, match="choose a folder that you may write to"):
        pki.issue("host", "a", tmp_path / "file" / "x")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOCKGATE_PKI", str(tmp_path / "pki"))

    def run(words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["lockgate", *words.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        assert ended.value.code == code, out
        return out.out + out.err

    def as_json(words: str) -> dict[str, str]:
        return dict(json.loads(run(f"pki {words} --json")))

    assert "make them with `lockgate pki init`" in run("pki show", 1)
    run("pki init")
    assert as_json(f"issue host host-a --out {tmp_path}/a --days 2")["name"] == "host-a"
    run(f"pki issue operator alice --out {tmp_path}/alice")
    assert "1 certificate(s) of host host-a revoked" in run("pki revoke host host-a")
    assert as_json(f"trust --out {tmp_path}/trust") == {"out": f"{tmp_path}/trust"}
    assert refused(tmp_path / "trust", "host", tmp_path / "a")
    run("pki rotate operator")
    run("pki rotate operator --finish")
    shown = json.loads(run("pki show --json"))
    assert [(each["role"], each["name"], each["state"]) for each in shown] == [
        ("operator", "alice", "superseded"),
        ("host", "host-a", "revoked"),
    ]
    assert sorted(shown[0]) == ["expires", "name", "role", "serial", "state"]
    assert "host-a" in run("pki show")
