"""An aggregated API that serves one external metric, whose value a test sets."""

import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from ground.control_plane import ControlPlane

GROUP = "external.metrics.k8s.io"
VERSION = f"{GROUP}/v1beta1"
METRIC = "backlog"
REGISTRATIONS = "/apis/apiregistration.k8s.io/v1/apiservices"
_RESOURCE = {
    "name": METRIC,
    "namespaced": True,
    "kind": "ExternalMetricValueList",
    "verbs": ["get"],
}


class MetricsApi:
    """Serves the metric behind the API server of a control plane; use it as a context."""

    def __init__(self, plane: ControlPlane) -> None:
        self.value = 0
        self._plane = plane
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*_certificate(plane.folder))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "MetricsApi":
        self._thread.start()
        port = self._server.server_address[1]
        # There is no kube-proxy: only a name leads the API server out of the cluster's addresses.
        service = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
        registration = {
            "group": GROUP,
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": "default", "name": "metrics", "port": port},
        }
        for path, name, spec in (
            ("/api/v1/namespaces/default/services", "metrics", service),
            (REGISTRATIONS, f"v1beta1.{GROUP}", registration),
        ):
            code, said = self._plane.request(
                "POST", path, {"metadata": {"name": name}, "spec": spec}
            )
            assert code == 201, said
        self._plane.until(REGISTRATIONS, lambda found: any(map(_is_available, found)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(api.answer(self.path.partition("?")[0])).encode()
                self.send_response(200 if body != b"null" else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        return Handler

    def answer(self, path: str) -> dict[str, Any] | None:
        """What a path of the API holds; None for nothing."""
        if path == f"/apis/{VERSION}":
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": VERSION,
                "resources": [_RESOURCE],
            }
        if not path.endswith(f"/{METRIC}"):
            return None
        item = {
            "metricName": METRIC,
            "metricLabels": {},
            "timestamp": "2026-01-01T00:00:00Z",
            "value": str(self.value),
        }
        return {"kind": "ExternalMetricValueList", "apiVersion": VERSION, "items": [item]}


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "metrics.crt", folder / "metrics.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=metrics"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True, timeout=60)
    return certificate, key


def _is_available(registration: dict[str, Any]) -> bool:
    conditions = registration.get("status", {}).get("conditions", [])
    told = {each["type"]: each["status"] for each in conditions}
    return registration["spec"].get("group") == GROUP and told.get("Available") == "True"
