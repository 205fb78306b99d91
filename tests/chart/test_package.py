"""The chart as one file, signed by whoever releases it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chart.rendering import ROOT, helm, helm_program

NAME = "a releaser"
KEY = f"%no-protection\nKey-Type: RSA\nKey-Length: 2048\nName-Real: {NAME}\n%commit\n"


@pytest.fixture
def keys() -> Iterator[Path]:
    """A folder with a new key in ``secret`` and its public half in ``public``."""
    helm_program()
    # The agent's socket lies here, and a path of a test is too long for one.
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    environment = {**os.environ, "GNUPGHOME": str(folder)}

    def gpg(*arguments: str, said: str = "") -> bytes:
        command = ["gpg", "--batch", "--quiet", *arguments]
        return subprocess.run(
            command, input=said.encode(), env=environment, capture_output=True, check=True
        ).stdout

    try:
        gpg("--generate-key", said=KEY)
        (folder / "secret").write_bytes(gpg("--export-secret-keys"))
        (folder / "public").write_bytes(gpg("--export"))
        yield folder
    finally:
        subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=environment, check=True)
        shutil.rmtree(folder)


@pytest.mark.skipif(
    shutil.which("gpg") is None and os.environ.get("DSSYNC_REQUIRE_PACKAGES") != "1",
    reason="gpg is not installed: Debian's package gnupg",
)
def test_a_signed_chart_is_told_from_one_that_somebody_has_altered(
    keys: Path, tmp_path: Path
) -> None:
    signing = (f"KEY={NAME}", f"KEYRING={keys / 'secret'}")
    subprocess.run(["make", "package", f"PACKED={tmp_path}", *signing], cwd=ROOT, check=True)
    (packed,) = tmp_path.glob("dssync-*.tgz")
    verify = ("verify", "--keyring", str(keys / "public"), str(packed))

    good = helm(*verify)
    packed.write_bytes(packed.read_bytes()[:-1] + b"?")
    bad = helm(*verify)

    assert (good.returncode, f"Signed by: {NAME}" in good.stdout) == (0, True), good.stderr
    assert bad.returncode != 0
