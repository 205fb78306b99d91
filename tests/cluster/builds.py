"""Images of this tree on the nodes of the kind cluster."""

from pathlib import Path

from ground.kind import images
from ground.kind.cluster import Cluster


def build_image(cluster: Cluster, name: str, file: Path, context: Path, *options: str) -> None:
    """Build an image and bring it to the nodes."""
    base = images.project_base(cluster.daemon)
    cluster.daemon.docker(
        *("build", "--network=host", f"--build-arg=BASE={base}", *options),
        *(f"--file={file}", f"--tag={name}", context),
    )
    cluster.load(name)
