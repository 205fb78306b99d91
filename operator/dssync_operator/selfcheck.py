"""What ``helm test`` asks from inside the cluster, as the operator's own service account.

    python -m dssync_operator.selfcheck URL RULES [NAMESPACES]

Does a replica answer, does the API server serve DSSyncJobs, and does the account hold every right
that the chart means to give it? The rules come from the chart, so none is forgotten here.
"""

import asyncio
import json
import os
import ssl
import sys
import urllib.request
from collections.abc import Iterable, Iterator

from dssync import contract
from dssync_operator import errors
from dssync_operator.cluster import Cluster, connect, find_credentials
from dssync_operator.job import Manifest, child, children, text
from dssync_operator.metrics import Metrics
from dssync_operator.paths import JOBS

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
ANSWER_SECONDS = 10.0


def main(arguments: list[str]) -> int:
    """Check everything, say what is wrong, and return the exit code."""
    url, rules, *rest = arguments
    namespaces = [name for name in ",".join(rest).split(",") if name] or [""]
    wrong = list(_silent(url))
    try:
        wrong += asyncio.run(_ask(json.loads(rules), namespaces))
    except errors.OperatorError as error:
        wrong.append(str(error))
    print("\n".join(wrong) or "the operator answers, DSSyncJobs are served, no right is missing")
    return 1 if wrong else 0


def _silent(url: str) -> Iterator[str]:
    unverified = ssl._create_unverified_context()  # as kubelets do; nothing secret is sent
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS, context=unverified):
            return
    except OSError as error:
        yield f"{url} does not answer: {error}; look at the operator's pods and their logs"


async def _ask(rules: list[Manifest], namespaces: Iterable[str]) -> list[str]:
    credentials = await find_credentials(os.environ.get("KUBECONFIG"))
    async with connect(credentials) as session:
        cluster = Cluster(session, credentials, Metrics())
        wrong = await _not_served(cluster)
        for namespace in namespaces:
            for wish in _wishes(rules, namespace):
                review = await cluster.create(REVIEWS, {"spec": {"resourceAttributes": wish}})
                if not child(review, "status").get("allowed"):
                    wrong.append(f"the right is missing: {json.dumps(wish)}")
        return wrong


async def _not_served(cluster: Cluster) -> list[str]:
    try:
        served = children(await cluster.get(JOBS), "resources")
    except errors.NotFoundError:
        served = ()
    if any(text(each, "name") == contract.PLURAL for each in served):
        return []
    return [f"the API server does not serve {contract.PLURAL} in {JOBS}: set crds.enabled"]


def _wishes(rules: list[Manifest], namespace: str) -> Iterator[dict[str, str]]:
    for rule in rules:
        for group, name, verb in _combined(rule):
            resource, _, subresource = name.partition("/")
            wish = {"group": group, "resource": resource, "verb": verb}
            wish |= {"subresource": subresource} if subresource else {}
            yield wish | ({"namespace": namespace} if namespace else {})


def _combined(rule: Manifest) -> Iterator[tuple[str, str, str]]:
    lists = [rule.get(key) for key in ("apiGroups", "resources", "verbs")]
    groups, names, verbs = (each if isinstance(each, list) else [] for each in lists)
    return ((group, name, verb) for group in groups for name in names for verb in verbs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
