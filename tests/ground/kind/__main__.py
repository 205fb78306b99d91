"""``python -m ground.kind up | down | status | wipe``."""

import sys

from ground.build import GroundError
from ground.kind.cluster import Cluster


def status(cluster: Cluster) -> None:
    """Print what is there; end with 1 if the cluster is not up."""
    if not cluster.exists():
        sys.exit("kind: no cluster is up; `make kind-up` brings it up")
    print(cluster.kubectl("get", "nodes", "--output=wide"), end="")
    print(cluster.kubectl("get", "pods", "--all-namespaces"), end="")
    print(f"export KUBECONFIG={cluster.kubeconfig}")


VERBS = {"up": Cluster.up, "down": Cluster.down, "status": status, "wipe": Cluster.wipe}

if __name__ == "__main__":
    try:
        VERBS[sys.argv[1]](Cluster())
    except GroundError as error:
        sys.exit(f"kind: {error}")
