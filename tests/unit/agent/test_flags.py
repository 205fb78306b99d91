"""From command lines and variables to settings, and what is said about wrong ones."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from dssync import contract
from dssync.agent.settings import Command, Settings
from dssync.errors import UsageError
from dssync.flags import parse
from dssync.flags.machine import gpu_count
from dssync.flags.table import FLAGS, REFUSED

NO_VARIABLES: Mapping[str, str] = {}


@pytest.fixture(autouse=True)
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").touch()


def settings(*flags: str, **variables: str) -> Settings:
    return parse([*flags, "train.py"], variables)


def complaint(*flags: str, **variables: str) -> str:
    with pytest.raises(UsageError) as caught:
        settings(*flags, **variables)
    return str(caught.value)


def test_everything_after_the_script_is_the_scripts() -> None:
    parsed = parse(["train.py", "--lr", "1", "--nnodes", "-m"], NO_VARIABLES)

    assert parsed.command == Command("script", "train.py", ("--lr", "1", "--nnodes", "-m"))


@pytest.mark.parametrize(
    ("switches", "kind"),
    [(["-m"], "module"), (["--no_python"], "program"), (["--run-path"], "script")],
)
def test_switches_say_what_the_script_is(switches: list[str], kind: str) -> None:
    assert settings(*switches).command.kind == kind


def test_dashes_and_underscores_are_the_same() -> None:
    assert settings("--nproc-per-node=3") == settings("--nproc_per_node", "3")


def test_every_flag_has_both_spellings() -> None:
    for name in (flag.name for flag in FLAGS):
        assert complaint(f"--{name}") != ""  # the script became its value
        assert "unrecognized" not in complaint(f"--{name.replace('-', '_')}")


def test_a_flag_wins_over_dssyncs_variable_and_that_over_torchruns() -> None:
    mine, torchruns = {contract.ENV_MAX_RESTARTS: "2"}, {"PET_MAX_RESTARTS": "3"}

    assert settings("--max-restarts", "1", **mine).supervision.max_restarts == 1
    assert settings(**mine, **torchruns).supervision.max_restarts == 2
    assert settings(**torchruns).supervision.max_restarts == 3


def test_codes_after_which_workers_are_restarted_are_any_unless_named() -> None:
    named = {contract.ENV_RESTART_CODES: "3,137"}

    assert settings().supervision.restart_codes is None
    assert settings(**named).supervision.restart_codes == {3, 137}


def test_switches_may_come_from_torchruns_variables() -> None:
    assert settings(PET_MODULE="1").command.kind == "module"
    assert settings(PET_MODULE="0").command.kind == "script"


@pytest.mark.parametrize(
    ("given", "pods"), [("4", (4, 4, 4)), ("2:6", (2, 6, 6)), ("1:1", (1, 1, 1))]
)
def test_of_min_and_max_launchers_max_is_wanted(given: str, pods: tuple[int, int, int]) -> None:
    world = settings("--nnodes", given, "--arbiter", "file:cell").world

    assert (world.min, world.desired, world.max) == pods


def test_the_operators_variables_set_the_world_unless_a_flag_does() -> None:
    variables = {
        contract.ENV_DESIRED: "3",
        contract.ENV_MIN: "2",
        contract.ENV_MAX: "8",
        contract.ENV_ARBITER: "file:cell",
        contract.ENV_SLOT: "7",
    }

    parsed = settings(**variables)

    assert (parsed.world.min, parsed.world.desired, parsed.world.max) == (2, 3, 8)
    assert parsed.job.slot == 7
    assert settings("--nnodes", "9", **variables).world.desired == 9


def test_every_core_gets_a_worker_without_gpus() -> None:
    count = len(os.sched_getaffinity(0))

    assert settings("--nproc-per-node", "cpu").world.nproc_per_node == count


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 3), ("", 0), ("0,2", 2), ("GPU-1a,GPU-2b", 2), ("-1", 0)]
)
def test_gpus_are_counted_without_torch(tmp_path: Path, visible: str | None, count: int) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    assert gpu_count(environ, tmp_path) == count


def test_one_launcher_needs_no_rendezvous() -> None:
    for parsed in (settings(), settings("--standalone")):
        assert (parsed.control.arbiter, parsed.control.arbiter_target) == ("static", "")
        assert parsed.control.port == 0


@pytest.mark.parametrize(
    ("flags", "target"),
    [
        (["--rdzv-endpoint", "localhost:7000"], "localhost:7000"),
        (["--rdzv-endpoint", "[::1]:7000"], "[::1]:7000"),
        (["--rdzv-endpoint", "localhost"], "localhost:29400"),
        (["--master-addr", "127.0.0.1", "--master-port", "7000"], "127.0.0.1:7000"),
        (["--arbiter", "static:localhost:7000"], "localhost:7000"),
    ],
)
def test_the_ways_to_name_the_static_endpoint(flags: list[str], target: str) -> None:
    control = settings("--nnodes", "2", *flags).control

    assert (control.arbiter, control.arbiter_target) == ("static", target)
    assert control.port == int(target.rpartition(":")[2])


def test_a_name_that_does_not_resolve_yet_is_no_wrong_value() -> None:
    flags = ("--nnodes", "2", "--rdzv-endpoint", "no.such.host.invalid:7000")

    assert settings(*flags).control.address == ""
    assert settings(*flags, "--local-addr", "10.0.0.1").control.address == "10.0.0.1"


def test_only_slot_zero_listens_on_the_endpoints_port() -> None:
    flags = ("--nnodes", "2", "--rdzv-endpoint", "localhost:7000", "--node-rank", "1")

    assert settings(*flags).control.port == 0


def test_what_is_taken_in_another_sense_is_said_in_one_line_each(tmp_path: Path) -> None:
    flags = ["--rdzv-backend", "c10d", "--monitor-interval", "5", "--backend", "nccl"]
    (tmp_path / "nvidia0").touch()

    arguments = [*flags, "--nproc-per-node", "2", "train.py"]
    parsed = parse(arguments, NO_VARIABLES, devices=tmp_path)

    notices = parsed.notices
    assert parsed.sync.shares_gpus

    assert [notice.split()[:2] for notice in notices] == [
        ["--rdzv-backend", "c10d"],
        ["OMP_NUM_THREADS", "is"],
        ["--backend", "nccl"],
        ["--monitor-interval", "has"],
    ]
    assert not any("\n" in notice for notice in notices)


@pytest.mark.parametrize(
    ("workers", "variables", "threads"),
    [("1", {}, None), ("2", {}, "1"), ("2", {"OMP_NUM_THREADS": "8"}, "8")],
)
def test_several_workers_get_one_thread_each_unless_told(
    workers: str, variables: dict[str, str], threads: str | None
) -> None:
    parsed = settings("--nproc-per-node", workers, **variables)

    assert parsed.environment.get("OMP_NUM_THREADS") == threads


def test_streams_are_chosen_for_all_or_by_local_rank() -> None:
    flags = ("--nproc-per-node", "2", "--log-dir", "logs", "--local-ranks-filter", "0,1")

    logs = settings(*flags, "-r", "3", "-t", "0:1,1:2").logs

    assert logs.redirected == {rank: {"stdout", "stderr"} for rank in range(2)}
    assert logs.teed == {0: {"stdout"}, 1: {"stderr"}}
    assert logs.console_ranks == {0, 1}


def test_milliseconds_of_variables_become_seconds() -> None:
    control = settings(DSSYNC_HEARTBEAT_MILLISECONDS="100", DSSYNC_LEASE_MILLISECONDS="900").control

    assert (control.heartbeat_seconds, control.lease_seconds) == (0.1, 0.9)


def test_torchruns_last_call_is_the_join_window() -> None:
    assert settings("--rdzv-conf", "last_call_timeout=1").world.join_window_seconds == 1.0


def test_who_leaves_no_time_is_understood() -> None:
    for parsed in (
        settings("--join-window", "0", "--drain-timeout", "0"),
        settings("--rdzv-conf", "last_call_timeout=0", "--drain-timeout", "0"),
        settings(DSSYNC_JOIN_WINDOW_SECONDS="0", DSSYNC_DRAIN_TIMEOUT_SECONDS="0"),
    ):
        assert parsed.world.join_window_seconds == 0.0
        assert parsed.supervision.drain_timeout_seconds == 0.0


def test_sync_every_is_another_name_of_every() -> None:
    assert settings("--sync-every", "8").sync == settings("--every", "8").sync


def test_signals_are_kept_by_name() -> None:
    assert settings("--signals-to-handle", "SIGTERM,SIGUSR2").supervision.signals == (
        signal.SIGTERM.name,
        signal.SIGUSR2.name,
    )


@pytest.mark.parametrize("name", REFUSED)
def test_a_flag_without_behaviour_is_refused_with_advice(name: str) -> None:
    assert complaint(f"--{name}", "any") == f"--{name} is not supported: {REFUSED[name]}"


def test_a_refused_variable_is_refused_too() -> None:
    assert complaint(PET_START_METHOD="spawn").startswith("PET_START_METHOD is not supported")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--no-such-flag"], "--no-such-flag"),
        (["--nnod", "2"], "--nnod"),
        (["--group-size", "1"], "--group-size: '1' was given, expected a whole number of at"),
        (["--every", "often"], "--every: 'often'"),
        (["--nproc-per-node", "0"], "--nproc-per-node: '0'"),
        (["--nproc-per-node", "xpu"], "--nproc-per-node: 'xpu'"),
        (["--nnodes", "4:2"], "--nnodes: '4:2' was given, expected N or MIN:MAX"),
        (["--nnodes", "0"], "--nnodes: '0'"),
        (["--nnodes", "2"], "2 launchers need a way to find each other"),
        (["--nnodes", "2", "--standalone"], "--standalone means one launcher, but 2"),
        (["--standalone", "--rdzv-endpoint", "a:1"], "--standalone and --rdzv-endpoint exclude"),
        (["--arbiter", "file:c", "--rdzv-endpoint", "a:1"], "both say who coordinates"),
        (["--arbiter", "raft:x"], "--arbiter: 'raft:x' was given, expected file:PATH"),
        (["--arbiter", "lease:job"], "lease:job' was given, expected file:PATH, static:HOST:PORT"),
        (["--rdzv-endpoint", "host:port"], "--rdzv-endpoint: 'port' was given, expected a port"),
        (["--rdzv-endpoint", "::1"], "brackets"),
        (["--rdzv-endpoint", f"{'a' * 64}.job:1"], "job' was given, expected a host's name"),
        (["--rdzv-endpoint", "a..job:1"], "--rdzv-endpoint: 'a..job' was given, expected a host"),
        (["--rdzv-endpoint", "a,b:1"], "'a,b:1' was given, expected a host's name or address; one"),
        (["--rdzv-endpoint", "a:1,b:1"], "'a:1,b:1' was given, expected a host's name or address;"),
        (["--rdzv-backend", "etcd"], "--rdzv-backend: 'etcd' was given, expected one of static"),
        (["--rdzv-conf", "timeout=5"], "--rdzv-conf: key 'timeout' is not supported"),
        (["--rdzv-id", "../up"], "--rdzv-id: '../up'"),
        (["--mode", "stream"], "--mode: 'stream' was given, expected one of grid, pool, cross"),
        (["--commit", "maybe"], "--commit: 'maybe' was given, expected one of relaxed, strict"),
        (["--backend", "mpi"], "--backend: 'mpi'"),
        (["--interface", "eth99"], "--interface: 'eth99' was given, expected one of this mach"),
        (["--lease", "nan"], "--lease: 'nan' was given, expected a duration above 0"),
        (["--lease", "0"], "--lease: '0' was given, expected a duration above 0"),
        (["--drain-timeout", "-1"], "'-1' was given, expected a duration of at least 0"),
        (["--join-window", "nan"], "'nan' was given, expected a duration of at least 0"),
        (["--lease", "0.3", "--heartbeat", "0.2"], "two heartbeats"),
        (["--metrics-port", "65536"], "--metrics-port: '65536'"),
        (["--token-file", "none"], "--token-file: 'none' was given, expected a file that exists"),
        (["--slot", "1"], "--slot: '1' was given, expected a number below the 1 launchers"),
        (["--slot", "0", "--node-rank", "1"], "the same as --slot 0"),
        (["--redirects", "3"], "say where with --log-dir"),
        (["--log-dir", "d", "--tee", "4"], "--tee: '4'"),
        (["--log-dir", "d", "--tee", "7:3"], "--tee: '7:3' was given, expected ranks below the 1"),
        (["--log-dir", "d", "-r", "1:1,0:2"], "--redirects: '1:1,0:2' was given, expected ranks"),
        (["--local-ranks-filter", "0,9"], "'0,9' was given, expected local ranks below the 1"),
        (["--log-dir", "train.py"], "--log-dir: 'train.py' was given, expected a directory"),
        (["--local-ranks-filter", "a"], "--local-ranks-filter: 'a'"),
        (["--signals-to-handle", "SIGKILL"], "--signals-to-handle: 'SIGKILL'"),
        (["--module", "--no-python"], "--module and --no-python exclude each other"),
        (["--max-restarts", "-1"], "--max-restarts: '-1'"),
        (["--restart-codes", "3,256"], "--restart-codes: '3,256'"),
        (["--restart-codes", "3,"], "exit codes from 1 to 255"),
    ],
)
def test_a_wrong_value_gets_one_sentence(flags: list[str], words: str) -> None:
    said = complaint(*flags)

    assert words in said
    assert "\n" not in said


def test_nccl_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is experimental and needs a GPU, and none is visible"):
        parse(["--backend", "nccl", "train.py"], NO_VARIABLES, devices=tmp_path)


def test_the_interface_that_is_there_is_taken() -> None:
    assert settings(DSSYNC_INTERFACE="lo").control.interface == "lo"


def test_the_variable_that_was_wrong_is_named() -> None:
    assert complaint(DSSYNC_GROUP_SIZE="1").startswith("DSSYNC_GROUP_SIZE: '1' was given")
    assert complaint(DSSYNC_QUORUM="all").startswith("DSSYNC_QUORUM: 'all' was given")


def test_a_script_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match=r"script 'tain\.py' is not a file"):
        parse(["tain.py"], NO_VARIABLES)


def test_a_missing_script_argument_is_said() -> None:
    with pytest.raises(UsageError, match="there is no script to run"):
        parse([], NO_VARIABLES)


def test_a_gpu_that_is_not_there_is_not_counted() -> None:
    if gpu_count({}):
        pytest.skip("this machine has a GPU")
    assert "there is no GPU here" in complaint("--nproc-per-node", "gpu")
