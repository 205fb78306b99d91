"""How launchers find each other: rendezvous flags and arbiter, brought to one setting."""

from dataclasses import dataclass

from dssync import contract
from dssync.agent.settings import ArbiterKind, ControlSettings, WorldSettings
from dssync.control.address import address_of
from dssync.errors import UsageError
from dssync.flags import machine
from dssync.flags.values import Origin, Values, endpoint, port


@dataclass(frozen=True)
class _Arbiter:
    kind: ArbiterKind
    target: str = ""
    host: str = ""
    port: int = 0


def control_settings(
    values: Values, world: WorldSettings, slot: int, standalone: bool
) -> tuple[ControlSettings, tuple[str, ...]]:
    """Return the settings of the control plane, and sentences for the user.

    Raises:
        UsageError: A value is wrong, or it stays open how launchers find each other.
    """
    notices = _rendezvous_notices(values)
    arbiter = _arbiter(values, world, standalone)
    heartbeat, lease = values.seconds("heartbeat"), values.seconds("lease")
    if lease < 2 * heartbeat:
        raise UsageError(
            f"--lease is {lease:g} s with --heartbeat {heartbeat:g} s: a lease must last two "
            "heartbeats or more"
        )
    settings = ControlSettings(
        arbiter=arbiter.kind,
        arbiter_target=arbiter.target,
        address=_address(values, arbiter),
        interface=_interface(values),
        port=_own_port(values, arbiter, slot),
        token_file=values.file("token-file"),
        heartbeat_seconds=heartbeat,
        lease_seconds=lease,
        quorum=values.choice("quorum", ("majority", "any")),
    )
    return settings, notices


def _rendezvous_notices(values: Values) -> tuple[str, ...]:
    if values.choice("rdzv-backend", ("static", "c10d")) == "static":
        return ()
    return ("--rdzv-backend c10d is taken as static: dssync has its own control plane",)


def _arbiter(values: Values, world: WorldSettings, standalone: bool) -> _Arbiter:
    said, rendezvous = values.origin("arbiter"), _rendezvous(values)
    if standalone:
        _check_standalone(world, said or rendezvous)
        return _Arbiter("static")
    if said is not None and rendezvous is not None:
        raise UsageError(f"{said.where} and {rendezvous.where} both say who coordinates: give one")
    if said is not None:
        return _named(said, values.variable(contract.ENV_JOB_NAMESPACE) is not None)
    if rendezvous is not None:
        return _static(rendezvous)
    if world.max > 1:
        raise UsageError(
            f"{world.max} launchers need a way to find each other: give --rdzv-endpoint HOST:PORT "
            "or --arbiter"
        )
    return _Arbiter("static")


def _check_standalone(world: WorldSettings, other: Origin | None) -> None:
    if world.max != 1:
        raise UsageError(f"--standalone means one launcher, but {world.max} may take part")
    if other is not None:
        raise UsageError(f"--standalone and {other.where} exclude each other: give one of them")


def _rendezvous(values: Values) -> Origin | None:
    said = values.origin("rdzv-endpoint")
    if said is not None:
        return said
    host, number = values.origin("master-addr"), values.origin("master-port")
    if host is None:
        return None if number is None else Origin(f"127.0.0.1:{number.text}", number.where)
    suffix = f":{number.text}" if number else ""
    return Origin(host.text + suffix, host.where)


def _named(said: Origin, in_namespace: bool) -> _Arbiter:
    kind, _, target = said.text.partition(":")
    if kind == "static" and target:
        return _static(Origin(target, said.where))
    if kind == "file" and target:
        return _Arbiter("file", target)
    if kind == "lease" and target and in_namespace:
        return _Arbiter("lease", target)
    said.refuse("file:PATH, static:HOST:PORT or, in a job's pod, lease:NAME")


def _static(said: Origin) -> _Arbiter:
    host, number = endpoint(said, contract.DEFAULT_PORT)
    return _Arbiter("static", address_of(host, number), host, number)


def _address(values: Values, arbiter: _Arbiter) -> str:
    """Return this machine's address; nothing where the launcher has to find it by a name."""
    known = not arbiter.host or values.origin("local-addr") is not None
    return values.text("local-addr") if known else ""


def _interface(values: Values) -> str:
    said = values.origin("interface")
    if said is None:
        return ""
    present = machine.interfaces()
    if said.text not in present:
        said.refuse(f"one of this machine's network interfaces {', '.join(present)}")
    return said.text


def _own_port(values: Values, arbiter: _Arbiter, slot: int) -> int:
    said = values.variable(contract.ENV_RENDEZVOUS_PORT)
    if said is not None:
        return port(said)
    return arbiter.port if slot == 0 else 0
