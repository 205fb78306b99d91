"""What a Docker daemon leaves on a machine: ``remember`` before, ``undo`` after.

Rules of the packet filter, forwarding, bridges, mounts, control groups. What is not the daemon's,
because it was there before, stays.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True)
class Traces:
    """Traces of the daemon that keeps everything in ``folder``."""

    folder: Path

    def remember(self) -> None:
        """Note how the machine is without the daemon."""
        for tool in _filters():
            (self.folder / f"{tool}.before").write_text(_saved(tool))
        (self.folder / "forwarding.before").write_text(FORWARDING.read_text())
        self._bridges_before.write_text("\n".join(_bridges()))

    @property
    def remembered(self) -> bool:
        """Whether there is something to undo."""
        return self._bridges_before.exists()

    def undo(self) -> None:
        """Make it so again."""
        for target in self._mounts():
            subprocess.run(["umount", target], check=True)
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        for group in _cgroups():
            for each, _, _ in os.walk(group, topdown=False):
                os.rmdir(each)
        for tool in _filters():
            before = (self.folder / f"{tool}.before").read_text()
            rules = before + emptied(_saved(tool), before)
            subprocess.run([f"{tool}-restore"], check=True, input=rules.encode())
        FORWARDING.write_text((self.folder / "forwarding.before").read_text())
        for name in self._new_bridges():
            subprocess.run(["ip", "link", "delete", name], check=True)

    def forget(self) -> None:
        """Nothing is to be undone any more."""
        self._bridges_before.unlink()

    def left(self) -> list[str]:
        """What is still there of it, in words."""
        found = [f"mount {target}" for target in self._mounts()]
        found += [f"control group {group}" for group in _cgroups()]
        found += [f"bridge {name}" for name in self._new_bridges()]
        before = (self.folder / "forwarding.before").read_text()
        found += [] if FORWARDING.read_text() == before else [f"another {FORWARDING}"]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"{self.folder}/" in command:
                found.append(f"process {path.parent.name}: {command}")
        for tool in _filters():
            before = (self.folder / f"{tool}.before").read_text()
            found += [f"{tool} {rule}" for rule in added(_saved(tool), before)]
        return found

    def _new_bridges(self) -> set[str]:
        return set(_bridges()) - set(self._bridges_before.read_text().split())

    @property
    def _bridges_before(self) -> Path:
        return self.folder / "bridges.before"

    def _mounts(self) -> list[Path]:
        lines = Path("/proc/mounts").read_text().splitlines()
        targets = [Path(line.split()[1]) for line in lines]
        return [target for target in targets if target.is_relative_to(self.folder)]


def emptied(now: str, before: str) -> str:
    """Rules that empty the tables that are there now and were not before.

    Args:
        now: What ``iptables-save`` prints now.
        before: What it printed before.
    """
    rules: list[str] = []
    for line in now.splitlines():
        name, _, policy = line.partition(" ")
        if line.startswith("*") and line not in before.splitlines():
            rules.append(line)
        elif rules and rules[-1] != "COMMIT":
            if line == "COMMIT":
                rules.append(line)
            elif line.startswith(":") and not policy.startswith("-"):
                rules.append(f"{name} ACCEPT [0:0]")
    return "\n".join([*rules, ""])


def added(now: str, before: str) -> list[str]:
    """Rules, and chains of users, that are there now and were not before.

    Args:
        now: What ``iptables-save`` prints now.
        before: What it printed before.
    """
    known = {_without_counters(line) for line in before.splitlines()}
    lines = [line for line in now.splitlines() if line.startswith("-A") or _is_users_chain(line)]
    return [line for line in lines if _without_counters(line) not in known]


def _is_users_chain(line: str) -> bool:
    return line.startswith(":") and line.split()[1] == "-"


def _without_counters(line: str) -> str:
    return line.partition(" [")[0]


def _cgroups() -> list[Path]:
    return [*CGROUPS.glob("docker"), *CGROUPS.glob("*/docker")]


def _filters() -> list[str]:
    return [tool for tool in ("iptables", "ip6tables") if shutil.which(f"{tool}-save")]


def _saved(tool: str) -> str:
    return subprocess.run([f"{tool}-save"], check=True, capture_output=True, text=True).stdout


def _bridges() -> list[str]:
    """Names of the network bridges that Docker may have made."""
    return [path.parent.name for path in Path("/sys/class/net").glob("br-*/bridge")]
