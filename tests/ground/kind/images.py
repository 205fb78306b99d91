"""Images for the test cluster where no registry of images can be reached.

Everything comes from the packages of this machine's distribution and from the binaries that
``ground.build`` makes. A Debian root file system becomes the base; it takes over this machine's
package sources and certificates, so that the project's own Dockerfiles build on it as well.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from ground.build import GroundError, binary, kubernetes_version
from ground.kind.daemon import Daemon

HERE: Final = Path(__file__).parent
BASE: Final = "dssync/base:1"
PUBLIC_BASE: Final = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim-bookworm"
PULL_SECONDS: Final = 300.0
BASE_PACKAGES: Final = ("ca-certificates", "python3", "python3-pip", "python3-venv")
TAKEN_OVER: Final = ("/etc/apt", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
SYSTEM: Final = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "etcd",
)
NODE: Final = ("kubelet", "kubeadm", "kubectl")
TARGETS: Final = ("pause", "system", "coredns")


def node_image() -> str:
    """Name of the home-made node image of the pinned version."""
    return f"dssync/kind-node:{kubernetes_version()}"


def build_base(daemon: Daemon) -> None:
    """Build the base image unless it is there.

    Raises:
        GroundError: This is no Debian, or debootstrap is missing.
    """
    if _exists(daemon, BASE):
        return
    if shutil.which("debootstrap") is None:
        raise GroundError("no debootstrap to make a base image with: install it")
    with tempfile.TemporaryDirectory(prefix="dssync-base-") as name:
        root = Path(name) / "root"
        packages = ",".join(BASE_PACKAGES)
        _run(
            "debootstrap",
            "--variant=minbase",
            f"--include={packages}",
            _codename(),
            root,
            _mirror(),
        )
        shutil.rmtree(root / "var/cache/apt/archives")
        for each in TAKEN_OVER:
            _take_over(Path(each), root)
        tar = Path(name) / "root.tar"
        _run("tar", "--numeric-owner", "-C", root, "-cf", tar, ".")
        daemon.docker(
            "import", "--change", "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", tar, BASE
        )


def available(daemon: Daemon, image: str) -> bool:
    """Whether an image is there or can be pulled; where no registry answers, that is final."""
    if _exists(daemon, image):
        return True
    try:
        daemon.docker("pull", "--quiet", image, seconds=PULL_SECONDS)
    except GroundError:
        return False
    return True


def project_base(daemon: Daemon) -> str:
    """The image that the project's own images are built on."""
    if available(daemon, PUBLIC_BASE):
        return PUBLIC_BASE
    build_base(daemon)
    return BASE


def build_node(daemon: Daemon, folder: Path) -> None:
    """Build the node image, and into ``folder`` the archives that its nodes load.

    Raises:
        GroundError: A binary of the test ground is missing.
    """
    if _exists(daemon, node_image()) and (folder / "names").exists():
        return
    build_base(daemon)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dssync-node-") as name:
        context = Path(name)
        shutil.copytree(HERE / "node", context / "node")
        shutil.copy(HERE / "Dockerfile", context)
        for each in (*SYSTEM, *NODE, "coredns"):
            shutil.copy(binary(each), context)
        _run(
            "go", "build", "-o", context / "pause", "./kind/pause", cwd=HERE.parent, CGO_ENABLED="0"
        )
        for target in TARGETS:
            _build(daemon, context, target, f"dssync/{target}:1")
            daemon.docker("save", "-o", folder / f"{target}.tar", f"dssync/{target}:1")
        _build(daemon, context, "node", node_image())
    _write_names(folder / "names")


def _take_over(path: Path, root: Path) -> None:
    """Put what this machine has at a path to the same place of a root file system."""
    target = root / path.relative_to("/")
    if path.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(path, target, symlinks=True)
    elif path.exists():
        shutil.copy(path, target)


def _build(daemon: Daemon, context: Path, target: str, image: str) -> None:
    daemon.docker(
        "build",
        "--network=host",
        f"--target={target}",
        f"--build-arg=BASE={BASE}",
        f"--build-arg=VERSION={kubernetes_version()}",
        "-t",
        image,
        context,
    )


def _write_names(path: Path) -> None:
    """Write which of our images stands for which name that kubeadm asks for."""
    asked = subprocess.run(
        [
            binary("kubeadm"),
            "config",
            "images",
            "list",
            "--kubernetes-version",
            kubernetes_version(),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    lines = []
    for name in asked:
        image = name.rpartition("/")[2].partition(":")[0]
        lines.append(f"{image if image in TARGETS else 'system'} {name}\n")
    path.write_text("".join(lines))


def _exists(daemon: Daemon, image: str) -> bool:
    return bool(daemon.docker("images", "-q", image).strip())


def _codename() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    if values.get("ID") != "debian":
        raise GroundError("a home-made node image needs Debian; elsewhere pull the public one")
    return values["VERSION_CODENAME"]


def _mirror() -> str:
    """Where this machine gets its packages from."""
    asked = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Component: main",
    ]
    found = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
    return found[0]


def _run(*command: object, cwd: Path | None = None, **environment: str) -> None:
    words = [str(part) for part in command]
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-3000:]
        raise GroundError(f"`{' '.join(words)}` ended with {done.returncode}:\n{said}")
