"""The arbiter of a job on Kubernetes: its Lease, swapped by resourceVersion.

The official client is imported with the first call and in its thread, so that launchers without
a cluster neither need nor load it. Calls are not repeated here: a write whose answer was lost may
have won, and only who reads again can tell. The job's role allows ``get`` and ``update`` on this
one object; making it is the operator's business.
"""

import asyncio
import json
import os
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from dssync.agent.arbiters import Record
from dssync.errors import ArbiterError

CALL_SECONDS: Final = 3.0
"""An election waits for the arbiter, so a call that takes longer counts as no answer."""
_CONFLICT: Final = 409
_WHAT_TO_DO: Final = {
    403: "the pod's service account needs get and update on it, as the operator's role gives",
    404: "the operator makes it anew",
}


class LeaseArbiter:
    """A ``coordination.k8s.io`` Lease: holder and term in its spec, values in its annotations.

    A swap writes the whole object as it was read, with these three replaced, so that labels,
    owners and whatever else is on it stay. The object of the version read last is kept for that;
    a swap from another version reads first.

    Args:
        namespace: Namespace of the Lease.
        name: Name of the Lease.
        call_seconds: Bound of each call.
    """

    def __init__(self, namespace: str, name: str, call_seconds: float = CALL_SECONDS) -> None:
        self._namespace = namespace
        self._name = name
        self._call_seconds = call_seconds
        self._latest: dict[str, Any] = {}

    async def read(self) -> Record:
        """See ``Arbiter.read``."""
        return await asyncio.to_thread(self._read)

    async def swap(self, expected: Record, new: Record) -> Record | None:
        """See ``Arbiter.swap``."""
        return await asyncio.to_thread(self._swap, expected, new)

    @cached_property
    def _leases(self) -> Any:
        """The client, with a pod's credentials where there are any, else with a kubeconfig's."""
        from kubernetes import client, config

        found = client.Configuration()
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(found)  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    os.environ.get("KUBECONFIG"), client_configuration=found
                )
        except config.ConfigException as error:
            raise ArbiterError(
                f"{self} cannot be reached: {error}; run in a pod or set KUBECONFIG"
            ) from error
        found.retries = False
        return client.CoordinationV1Api(client.ApiClient(found))

    def _read(self) -> Record:
        self._latest = self._call("read_namespaced_lease")
        return _record(self._latest)

    def _swap(self, expected: Record, new: Record) -> Record | None:
        lease = self._latest
        if not lease or lease["metadata"]["resourceVersion"] != expected.version:
            lease = self._call("read_namespaced_lease")
            if lease["metadata"]["resourceVersion"] != expected.version:
                return None
        spec = {**lease.get("spec", {}), "leaseTransitions": new.term}
        spec["holderIdentity"] = new.holder or None
        metadata = {**lease["metadata"], "annotations": dict(new.values)}
        try:
            written = self._call(
                "replace_namespaced_lease", body={**lease, "metadata": metadata, "spec": spec}
            )
        except _ConflictError:
            return None
        self._latest = written
        return replace(new, version=_record(written).version)

    def _call(self, verb: str, **arguments: object) -> dict[str, Any]:
        """Ask the API server and return the object it answers with, as it is on the wire."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        limits = {"_preload_content": False, "_request_timeout": self._call_seconds}
        try:
            answer = getattr(self._leases, verb)(self._name, self._namespace, **limits, **arguments)
            found: dict[str, Any] = json.loads(answer.data)
        except ApiException as error:
            if error.status == _CONFLICT:
                raise _ConflictError from None
            if not error.status:
                raise ArbiterError(_silent(self, error.reason)) from error
            advice = _WHAT_TO_DO.get(error.status, "it will be asked again")
            raise ArbiterError(f"{self}: {error.status} {error.reason}; {advice}") from error
        except (HTTPError, OSError, ValueError) as error:
            raise ArbiterError(_silent(self, error)) from error
        return found

    def __str__(self) -> str:
        return f"Lease {self._namespace}/{self._name}"


class _ConflictError(Exception):
    """Somebody else wrote first."""


def _silent(lease: LeaseArbiter, why: object) -> str:
    return f"{lease}: no answer from the API server: {why}"


def _record(lease: dict[str, Any]) -> Record:
    metadata, spec = lease["metadata"], lease.get("spec", {})
    return Record(
        version=metadata["resourceVersion"],
        holder=spec.get("holderIdentity") or "",
        term=spec.get("leaseTransitions") or 0,
        values=metadata.get("annotations") or {},
    )
