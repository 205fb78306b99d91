"""Build etcd, Kubernetes, kind and helm once, from their Go modules, into a cache elsewhere.

``go.mod`` beside this file pins every version. The cache is keyed by those versions, so that a
changed pin builds anew and an unchanged one costs nothing. ``KUBEBUILDER_ASSETS`` names a folder
with ready binaries (as ``setup-envtest`` leaves it); what is there is used as it is.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
HELM_VERSION: Final = "v4.3.1"
PACKAGES: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}
"""What the API tests need."""
NODE_PACKAGES: Final = {
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubeadm": "k8s.io/kubernetes/cmd/kubeadm",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
}
"""What a home-made kind node needs beside them."""
MODULES: Final = {
    "helm": f"helm.sh/helm/v4/cmd/helm@{HELM_VERSION}",
    "kind": "sigs.k8s.io/kind@v0.33.0",
    "coredns": "github.com/coredns/coredns@v1.12.1",
}
"""Commands that are built with their modules' own dependencies."""
WANTED: Final = {
    "api": (*PACKAGES, "helm"),
    "kind": (*PACKAGES, "helm", *NODE_PACKAGES, "kind", "coredns"),
}


class GroundError(Exception):
    """A binary of the test ground is missing or a part of it did not start."""


def kubernetes_version() -> str:
    """The pinned version of Kubernetes, such as ``v1.34.4``."""
    return _pinned("k8s.io/kubernetes")


def _pinned(module: str) -> str:
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)$", (HERE / "go.mod").read_text(), re.M)
    if found is None:
        raise GroundError(f"tests/ground/go.mod pins no version of {module}: add a require line")
    return found[1]


def cache_folder() -> Path:
    """Where the binaries of the pinned versions lie, built or not."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = f"{kubernetes_version()}-etcd-{_pinned('go.etcd.io/etcd/server/v3')}-helm-{HELM_VERSION}"
    return base / "dssync" / "ground" / key


def binary(name: str) -> Path:
    """The built binary of that name.

    Raises:
        GroundError: It is neither in ``KUBEBUILDER_ASSETS`` nor in the cache.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    places = [Path(assets)] if assets else []
    places.append(cache_folder())
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    raise GroundError(
        f"{name} is not in {' or '.join(map(str, places))}: run `make ground` (once, minutes)"
    )


def missing() -> list[str]:
    """Names of the binaries that the API tests need and that are nowhere to be found."""
    return [name for name in PACKAGES if not _present(name)]


def _present(name: str) -> bool:
    try:
        binary(name)
    except GroundError:
        return False
    return True


def build(level: str) -> None:
    """Build whatever a level of tests needs and is missing.

    Raises:
        GroundError: There is no Go, or a build failed.
    """
    wanted = [name for name in WANTED[level] if not _present(name)]
    if wanted and shutil.which("go") is None:
        raise GroundError(f"{', '.join(wanted)} must be built, and there is no `go`: install Go")
    target = cache_folder()
    target.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        print(f"ground: building {name} into {target}", flush=True)
        _install(name, target) if name in MODULES else _build(name, target)


def _build(name: str, target: Path) -> None:
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    stamp = "k8s.io/component-base/version."
    # Without these the server calls itself v0.0.0 and checks of features by version go wrong.
    flags = (
        f"-s -w -X {stamp}gitVersion={version} -X {stamp}gitMajor={major}"
        f" -X {stamp}gitMinor={minor} -X {stamp}gitTreeState=clean"
    )
    package = PACKAGES.get(name) or NODE_PACKAGES[name]
    partial = target / f".{name}.{os.getpid()}"
    _go(["build", "-trimpath", "-ldflags", flags, "-o", str(partial), package], HERE, {})
    partial.rename(target / name)


def _install(name: str, target: Path) -> None:
    # Static, because CoreDNS runs in an image of nothing else.
    environment = {"GOBIN": str(target), "CGO_ENABLED": "0"}
    _go(["install", "-trimpath", "-ldflags=-s -w", MODULES[name]], Path("/"), environment)


def _go(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(["go", *arguments], cwd=folder, env={**os.environ, **environment})
    if done.returncode != 0:
        raise GroundError(f"`go {' '.join(arguments)}` ended with {done.returncode}: see above")


if __name__ == "__main__":
    try:
        build(sys.argv[1] if len(sys.argv) > 1 else "api")
    except GroundError as error:
        sys.exit(f"ground: {error}")
