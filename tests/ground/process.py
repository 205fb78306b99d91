"""The operator as a real process on the test ground."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from ground.control_plane import free_ports


class OperatorProcess:
    """One replica. Settings are keyword arguments, such as ``qps=50``."""

    def __init__(self, kubeconfig: Path, log: Path, **settings: object) -> None:
        self.port = free_ports(1)[0]
        self.log = log
        given = {"port": self.port, "lease_namespace": "default", **settings}
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            **{f"DSSYNC_OPERATOR_{key.upper()}": str(value) for key, value in given.items()},
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dssync_operator"],
                env=environment,
                stdout=output,
                stderr=output,
                cwd=log.parent,
            )

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Ask its endpoint; code 0 when nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as said:
                return said.status, said.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> "OperatorProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
