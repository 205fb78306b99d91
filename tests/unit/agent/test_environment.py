"""Variables that workers start with."""

from dataclasses import replace

import pytest

from dssync.agent.environment import worker_environment
from dssync.agent.settings import (
    Command,
    ControlSettings,
    JobSettings,
    Settings,
    SupervisionSettings,
    SyncSettings,
    WorldSettings,
)

SETTINGS = Settings(
    Command("script", "train.py"),
    job=JobSettings(run_id="digits", slot=2),
    world=WorldSettings(desired=3, min=1, max=4, nproc_per_node=2),
    supervision=SupervisionSettings(max_restarts=5, role="trainer"),
    environment={"HOME": "/home/user", "RANK": "99", "DSSYNC_LINK_FD": "7"},
)


def test_ranks_count_slots_and_workers_as_torchrun_counts_nodes() -> None:
    environment = worker_environment(SETTINGS, local_rank=1, restarts=0)

    assert {name: environment[name] for name in ("RANK", "LOCAL_RANK", "GROUP_RANK")} == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "GROUP_RANK": "2",
    }
    assert environment["WORLD_SIZE"] == environment["ROLE_WORLD_SIZE"] == "6"
    assert environment["LOCAL_WORLD_SIZE"] == "2"
    assert environment["GROUP_WORLD_SIZE"] == "3"
    assert (environment["ROLE_NAME"], environment["ROLE_RANK"]) == ("trainer", "5")


def test_restarts_are_told_per_worker() -> None:
    environment = worker_environment(SETTINGS, local_rank=0, restarts=3)

    assert environment["TORCHELASTIC_RESTART_COUNT"] == "3"
    assert environment["TORCHELASTIC_MAX_RESTARTS"] == "5"
    assert environment["TORCHELASTIC_RUN_ID"] == "digits"


@pytest.mark.parametrize(
    ("control", "master"),
    [
        (ControlSettings("static", "host:7000"), ("host", "7001")),
        (ControlSettings("static", "[::1]:7000"), ("::1", "7001")),
        (ControlSettings("static"), ("127.0.0.1", "29500")),
        (ControlSettings("file", "cell"), (None, None)),
    ],
)
def test_the_masters_port_is_not_the_control_planes(
    control: ControlSettings, master: tuple[str | None, str | None]
) -> None:
    environment = worker_environment(replace(SETTINGS, control=control), 0, 0)

    assert (environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")) == master


def test_a_master_that_the_user_chose_is_kept() -> None:
    settings = replace(SETTINGS, environment={"MASTER_PORT": "1234"})

    assert worker_environment(settings, 0, 0)["MASTER_PORT"] == "1234"


def test_the_launchers_environment_is_inherited() -> None:
    assert worker_environment(SETTINGS, 0, 0)["HOME"] == "/home/user"


def test_the_interface_is_told_to_both_transports_unless_the_user_said_otherwise() -> None:
    told = replace(
        SETTINGS,
        control=ControlSettings(interface="eth1"),
        environment={"NCCL_SOCKET_IFNAME": "ib0"},
    )

    environment = worker_environment(told, local_rank=0, restarts=0)

    assert environment["GLOO_SOCKET_IFNAME"] == "eth1"
    assert environment["NCCL_SOCKET_IFNAME"] == "ib0"


@pytest.mark.parametrize(
    ("sync", "expected"),
    [
        (SyncSettings(backend="gloo"), {}),
        (SyncSettings(backend="auto"), {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}),
        (
            SyncSettings(backend="nccl", shares_gpus=True),
            {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "NCCL_HOSTID": "2-1"},
        ),
    ],
)
def test_torchs_watchdog_is_told_to_leave_failed_groups_to_us(
    sync: SyncSettings, expected: dict[str, str]
) -> None:
    environment = worker_environment(replace(SETTINGS, sync=sync), local_rank=1, restarts=0)

    names = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "NCCL_HOSTID")
    assert {name: environment[name] for name in names if name in environment} == expected
