"""A real etcd, API server and controller manager on free loopback ports, as plain processes.

Nothing schedules and nothing runs pods: they stay Pending until a test plays kubelet. Everything
lives in one temporary folder and ends with the process group that was started for it.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from ground.api import ADMIN, ApiClient, Manifest
from ground.build import GroundError, binary

START_SECONDS: Final = 60.0
LIMITED_USERS: Final = ("operator", "namespaced", "outsider")


@dataclass
class ControlPlane:
    """One control plane; ``start`` it, use ``kubeconfig`` or ``url`` and ``tokens``, ``stop`` it.

    Attributes:
        audit: Whether the API server writes every request into ``audit_log``.
        accounts: Whether pods need an account that exists, as in a real cluster.
        controllers: Value of the controller manager's flag; the default is enough for garbage
            collection, and starts nothing that reacts to pods or Services.
        controller_flags: Further flags of the controller manager.
    """

    audit: bool = False
    accounts: bool = True
    controllers: str = "garbage-collector-controller,namespace-controller"
    controller_flags: Sequence[str] = ()
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dssync-ground-")))
    port: int = field(default_factory=lambda: free_ports(1)[0])
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _etcd_ports: list[int] = field(default_factory=lambda: free_ports(2))

    def __post_init__(self) -> None:
        """Choose the tokens and write what the processes read at start."""
        self.tokens = {user: secrets.token_hex(16) for user in (ADMIN, *LIMITED_USERS)}
        groups = {ADMIN: '"system:masters"'}
        lines = [
            f"{token},{user},{user},{groups.get(user, '')}" for user, token in self.tokens.items()
        ]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        self._make_keys()
        self._api = ApiClient(self.port, self.ca_file, self.tokens)

    @property
    def url(self) -> str:
        """Base address of the API server."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """Certificate that the API server signed for itself."""
        return self.folder / "certs" / "apiserver.crt"

    @property
    def audit_log(self) -> Path:
        """One JSON object a line for each request, where ``audit`` is set."""
        return self.folder / "audit.log"

    @property
    def kubeconfig(self) -> Path:
        """Configuration of the administrator."""
        return self.kubeconfig_of(ADMIN)

    def kubeconfig_of(self, user: str, url: str | None = None) -> Path:
        """Write and return the configuration of one user, for this server or a proxy before it."""
        return self._write_kubeconfig(user, self.tokens[user], url)

    def kubeconfig_of_account(self, namespace: str, name: str, url: str | None = None) -> Path:
        """Write and return the configuration of a service account, with a fresh token."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        code, said = self.request("POST", path, {"spec": {"expirationSeconds": 3600}})
        assert code == 201, said
        return self._write_kubeconfig(f"{namespace}-{name}", said["status"]["token"], url)

    def _write_kubeconfig(self, user: str, token: str, url: str | None) -> Path:
        path = self.folder / f"kubeconfig-{user}-{abs(hash(url)) if url else 'direct'}"
        cluster = {"server": url or self.url, "certificate-authority": str(self.ca_file)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "ground",
            "contexts": [{"name": "ground", "context": {"cluster": "ground", "user": user}}],
            "clusters": [{"name": "ground", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
        }
        # In one step: somebody who was started with this path may read it just now.
        fresh = path.with_name(f"{path.name}.{threading.get_ident()}")
        fresh.write_text(yaml.safe_dump(content))
        fresh.replace(path)
        return path

    def start(self) -> "ControlPlane":
        """Start the three processes and wait until the API server is ready.

        Raises:
            GroundError: A part did not come up; the message holds the end of its log.
        """
        self.start_etcd()
        self.start_apiserver()
        self._start_controller_manager()
        self.until("/api/v1/namespaces", lambda found: "default" in map(_name, found))
        return self

    def start_etcd(self) -> None:
        """Start etcd without waiting for it: the API server does."""
        client, peer = (f"http://127.0.0.1:{port}" for port in self._etcd_ports)
        self._spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=error",
            "--unsafe-no-fsync",
        )

    def start_apiserver(self) -> None:
        """Start the API server and wait until it is ready."""
        keys = self.folder / "service-accounts"
        flags = [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_ports[0]}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC,Node",
            "--service-account-issuer=https://ground.dssync.io",
            f"--service-account-key-file={keys}.pub",
            f"--service-account-signing-key-file={keys}.key",
            "--service-cluster-ip-range=10.200.0.0/16",
            "--endpoint-reconciler-type=none",
        ]
        if not self.accounts:
            flags.append("--disable-admission-plugins=ServiceAccount")
        if self.audit:
            policy = {
                "apiVersion": "audit.k8s.io/v1",
                "kind": "Policy",
                "omitStages": ["RequestReceived"],
                "rules": [{"level": "Metadata"}],
            }
            (self.folder / "audit.yaml").write_text(yaml.safe_dump(policy))
            flags += [
                f"--audit-policy-file={self.folder / 'audit.yaml'}",
                f"--audit-log-path={self.audit_log}",
            ]
        self._spawn("kube-apiserver", *flags)
        self._wait_ready()

    def _start_controller_manager(self) -> None:
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
            f"--root-ca-file={self.ca_file}",
            "--leader-elect=false",
            "--secure-port=0",
            f"--controllers={self.controllers}",
            *self.controller_flags,
        )

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of the processes, as in ``signal('kube-apiserver', SIGSTOP)``."""
        self._processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """End one of the processes at once and wait for its end."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def save_etcd(self) -> Path:
        """Copy what etcd holds now, as a backup does; etcd is down meanwhile."""
        self.kill("etcd")
        copy = self.folder / "etcd-backup"
        shutil.copytree(self.folder / "etcd", copy)
        self.start_etcd()
        return copy

    def restore_etcd(self, copy: Path) -> None:
        """Go back to a backup. The API server starts anew: its cache is of the future."""
        self.kill("kube-apiserver")
        self.kill("etcd")
        shutil.rmtree(self.folder / "etcd")
        shutil.copytree(copy, self.folder / "etcd")
        self.start_etcd()
        self.start_apiserver()

    def pid(self, name: str) -> int:
        """Process id of one of the parts."""
        return self._processes[name].pid

    def stop(self) -> None:
        """End all processes and remove their folder."""
        self._api.close()
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as administrator and return what it printed."""
        done = subprocess.run(
            [str(binary("kubectl")), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(self.folder)},
            timeout=60,
        )
        if check and done.returncode != 0:
            raise GroundError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout + done.stderr

    def define(self, resource: Path) -> None:
        """Have the API server know a custom resource, and wait until it serves it."""
        manifest = yaml.safe_load(resource.read_text())
        self.kubectl("apply", "--server-side", "-f", str(resource))
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        only = f"?fieldSelector=metadata.name%3D{manifest['metadata']['name']}"
        # ``kubectl wait`` gives up if it looks before there are any conditions.
        self.until(
            f"{definitions}{only}", lambda found: bool(found) and all(map(_is_established, found))
        )

    @property
    def request(self) -> Callable[..., tuple[int, Manifest]]:
        """Send one request and return status and body; see ``ApiClient``."""
        return self._api.request

    @property
    def until(self) -> Callable[..., list[Manifest]]:
        """Wait until something holds for the objects of a collection; see ``ApiClient``."""
        return self._api.until

    @property
    def history(self) -> Callable[..., list[Manifest]]:
        """Everything that happened to a collection since a version; see ``ApiClient``."""
        return self._api.history

    def audit_entries(self) -> list[Manifest]:
        """Everything that the audit log holds now."""
        lines = self.audit_log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def _spawn(self, name: str, *flags: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(binary(name)), *flags], stdout=log, stderr=log, cwd=self.folder
            )

    def _wait_ready(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            if self._processes["kube-apiserver"].poll() is not None:
                break
            try:
                if self.request("GET", "/readyz?verbose=0")[0] == 200:
                    return
            except json.JSONDecodeError:
                return  # "ok" is no JSON, and the only body that comes with 200
            except OSError:
                pass
            time.sleep(0.05)
        log = (self.folder / "kube-apiserver.log").read_text()[-2000:]
        raise GroundError(f"kube-apiserver was not ready within {START_SECONDS:g} s:\n{log}")

    def _make_keys(self) -> None:
        private, public = (str(self.folder / f"service-accounts.{end}") for end in ("key", "pub"))
        for command in (
            ["genrsa", "-out", private, "2048"],
            ["rsa", "-in", private, "-pubout", "-out", public],
        ):
            subprocess.run(["openssl", *command], check=True, capture_output=True)


def _name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def free_ports(count: int) -> list[int]:
    """Ports on the loopback that nobody listens on now."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def _is_established(definition: Manifest) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    said = {each["type"]: each["status"] for each in conditions}
    return said.get("Established") == "True"
