"""From single values to ``Settings``: what belongs together is checked together."""

import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from dssync import contract
from dssync.agent.settings import (
    Command,
    CommandKind,
    HistorySettings,
    JobSettings,
    LogSettings,
    Settings,
    Stream,
    SupervisionSettings,
    SyncSettings,
    WorldSettings,
)
from dssync.errors import UsageError
from dssync.flags import machine
from dssync.flags.control import control_settings
from dssync.flags.parser import read
from dssync.flags.values import Origin, Values, integer, seconds

_STREAMS: Final[dict[str, frozenset[Stream]]] = {
    "0": frozenset(),
    "1": frozenset({"stdout"}),
    "2": frozenset({"stderr"}),
    "3": frozenset({"stdout", "stderr"}),
}
_MONITOR_NOTICE: Final = "--monitor-interval has nothing to set: exits are noticed at once"


def parse(
    argv: Sequence[str], environ: Mapping[str, str], devices: Path = Path("/dev")
) -> Settings:
    """Return the settings that a command line and its environment ask for.

    Flags win over ``DSSYNC_`` variables, these over torchrun's ``PET_`` variables.

    Args:
        argv: What follows ``dssync run``.
        environ: The launcher's environment; workers inherit it.
        devices: Where the machine shows its GPUs.

    Raises:
        UsageError: A value is wrong or two contradict each other; one sentence says which.
    """
    namespace = read(argv, environ)
    values = Values(namespace, environ)
    command = _command(namespace.script, namespace.arguments, _kind(vars(namespace)))
    gpus = machine.gpu_count(environ, devices)
    world = _world(values, gpus)
    slot = _slot(values, world)
    control, control_notices = control_settings(values, world, slot, namespace.standalone)
    environment, thread_notices = _environment(environ, world.nproc_per_node)
    return Settings(
        command=command,
        job=_job(values, slot),
        world=world,
        sync=_sync(values, world, gpus),
        control=control,
        supervision=_supervision(values),
        logs=_logs(values, world.nproc_per_node),
        history=_history(values),
        environment=environment,
        notices=(*control_notices, *thread_notices, *_notices(values)),
    )


def _kind(switches: Mapping[str, object]) -> CommandKind:
    if switches["run_path"]:
        return "script"
    if switches["module"] and switches["no_python"]:
        raise UsageError("--module and --no-python exclude each other: give one of them")
    if switches["no_python"]:
        return "program"
    return "module" if switches["module"] else "script"


def _command(target: str, arguments: Sequence[str], kind: CommandKind) -> Command:
    if kind == "script" and not Path(target).is_file():
        raise UsageError(f"script {target!r} is not a file: give the path of a Python script")
    return Command(kind, target, tuple(arguments))


def _world(values: Values, gpus: int) -> WorldSettings:
    low, desired, high = _pods(values)
    window = _last_call(values)
    return WorldSettings(
        desired=desired,
        min=low,
        max=high,
        nproc_per_node=_workers(values, gpus),
        join_window_seconds=window,
    )


def _pods(values: Values) -> tuple[int, int, int]:
    """Return the least, the wanted and the greatest number of pods."""
    said = values.origin("nnodes")
    wanted = values.variable(contract.ENV_DESIRED)
    if wanted is not None and (said is None or not said.where.startswith("--")):
        desired = integer(wanted, 1)
        low = values.variable(contract.ENV_MIN)
        high = values.variable(contract.ENV_MAX)
        pods = (
            desired if low is None else integer(low, 1),
            desired,
            desired if high is None else integer(high, 1),
        )
        if not pods[0] <= desired <= pods[2]:
            wanted.refuse(f"a number from {contract.ENV_MIN} to {contract.ENV_MAX}")
        return pods
    if said is None:
        return 1, 1, 1
    match = re.fullmatch(r"(\d+)(?::(\d+))?", said.text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < least <= most:
        said.refuse("N or MIN:MAX with 1 <= MIN <= MAX")
    return least, most, most


def _workers(values: Values, gpus: int) -> int:
    text = values.text("nproc-per-node")
    if text == "gpu" and gpus == 0:
        raise UsageError("--nproc-per-node gpu: there is no GPU here; say cpu or a number")
    if text in ("auto", "gpu") and gpus:
        return gpus
    if text in ("auto", "cpu"):
        return machine.cpu_count()
    return values.integer("nproc-per-node", minimum=1)


def _last_call(values: Values) -> float:
    """Return the join window; torchrun's name for it is honoured, its other keys are not."""
    window = values.seconds("join-window", zero_too=True)
    said = values.origin("rdzv-conf")
    for pair in said.text.split(",") if said else ():
        key, _, value = (part.strip() for part in pair.partition("="))
        if key != "last_call_timeout":
            raise UsageError(
                f"{said.where if said else ''}: key {key!r} is not supported, only "
                "last_call_timeout is"
            )
        window = seconds(Origin(value, "--rdzv-conf last_call_timeout"), zero_too=True)
    return window


def _slot(values: Values, world: WorldSettings) -> int:
    slot, rank = values.origin("slot"), values.origin("node-rank")
    said = slot or rank
    if said is None:
        return 0
    number = integer(said, 0)
    if slot and rank and slot.where == "--slot" and integer(rank, 0) != number:
        rank.refuse(f"the same as --slot {number}, or nothing")
    if number >= world.max:
        said.refuse(f"a number below the {world.max} launchers that may take part")
    return number


def _job(values: Values, slot: int) -> JobSettings:
    run_id = values.text("rdzv-id")
    if not re.fullmatch(r"[\w.-]+", run_id) or run_id.startswith("."):
        Origin(run_id, "--rdzv-id").refuse("letters, digits, '_', '-' and '.', it names files")

    def variable(name: str) -> str:
        said = values.variable(name)
        return said.text if said else ""

    return JobSettings(
        run_id=run_id,
        name=variable(contract.ENV_JOB_NAME),
        namespace=variable(contract.ENV_JOB_NAMESPACE),
        uid=variable(contract.ENV_JOB_UID),
        slot=slot,
        pod_uid=variable(contract.ENV_POD_UID),
        node_name=variable(contract.ENV_NODE_NAME),
        topology=variable(contract.ENV_TOPOLOGY),
    )


def _sync(values: Values, world: WorldSettings, gpus: int) -> SyncSettings:
    if values.text("backend") == "nccl" and not gpus:
        raise UsageError(
            "--backend nccl is experimental and needs a GPU, and none is visible here: say gloo"
        )
    return SyncSettings(
        group_size=values.integer("group-size", minimum=2),
        every=values.integer("every", minimum=1),
        mode=values.choice("mode", contract.MODES),
        commit=values.choice("commit", ("relaxed", "strict")),
        backend=values.choice("backend", ("auto", "gloo", "nccl")),
        shares_gpus=world.nproc_per_node > gpus,
        seed=values.integer("seed", minimum=0),
        average_optimizer_state=values.choice("average-optimizer-state", ("0", "1")) == "1",
    )


def _supervision(values: Values) -> SupervisionSettings:
    return SupervisionSettings(
        max_restarts=values.integer("max-restarts", minimum=0),
        restart_codes=_restart_codes(values),
        role=values.text("role"),
        shutdown_timeout_seconds=values.seconds("shutdown-timeout"),
        drain_timeout_seconds=values.seconds("drain-timeout", zero_too=True),
        hang_timeout_seconds=values.seconds("hang-timeout"),
        signals=_signals(values),
        termination_log=_termination_log(values),
        metrics_port=values.port("metrics-port"),
    )


def _history(values: Values) -> HistorySettings:
    log, out, until = (values.origin(name) for name in ("view-log", "replay-out", "until"))
    replay = values.file("replay")
    if replay is None:
        for said in filter(None, (out, until)):
            said.refuse("nothing without --replay")
        return HistorySettings(view_log=Path(log.text).absolute() if log else None)
    if log is not None:
        raise UsageError("--view-log and --replay exclude each other: give one of them")
    values_folder = Path(out.text) if out else replay.with_name(f"{replay.name}.replayed")
    return HistorySettings(
        replay=replay.absolute(),
        until=None if until is None else integer(until, 0),
        values=values_folder.absolute(),
    )


def _termination_log(values: Values) -> Path | None:
    said = values.variable(contract.ENV_TERMINATION_LOG)
    if said is not None:
        return Path(said.text)
    usual = Path(contract.TERMINATION_LOG)
    return usual if usual.exists() else None  # the kubelet makes it; nobody else reads it


def _signals(values: Values) -> tuple[str, ...]:
    names = tuple(name.strip() for name in values.text("signals-to-handle").split(","))
    catchable = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
    for name in names:
        if name not in signal.Signals.__members__ or signal.Signals[name] not in catchable:
            Origin(name, "--signals-to-handle").refuse("names such as SIGTERM,SIGINT")
    return names


def _restart_codes(values: Values) -> frozenset[int] | None:
    said = values.origin("restart-codes")
    if said is None:
        return None
    codes = [part.strip() for part in said.text.split(",")]
    if not all(code.isascii() and code.isdigit() and 0 < int(code) < 256 for code in codes):
        said.refuse("exit codes from 1 to 255, such as 3,17")
    return frozenset(map(int, codes))


def _logs(values: Values, worker_count: int) -> LogSettings:
    directory = values.origin("log-dir")
    redirected = _streams(values, "redirects", worker_count)
    teed = _streams(values, "tee", worker_count)
    if directory is None and any((*redirected.values(), *teed.values())):
        raise UsageError("--redirects and --tee write files: say where with --log-dir")
    if directory is not None and Path(directory.text).is_file():
        directory.refuse("a directory, or a path where one can be made")
    return LogSettings(
        directory=Path(directory.text) if directory else None,
        redirected=redirected,
        teed=teed,
        console_ranks=_console_ranks(values, worker_count),
    )


def _streams(values: Values, name: str, worker_count: int) -> dict[int, frozenset[Stream]]:
    text = values.text(name)
    if text in _STREAMS:
        return dict.fromkeys(range(worker_count), _STREAMS[text])
    if not re.fullmatch(r"\d+:[0-3](,\d+:[0-3])*", text):
        Origin(text, f"--{name}").refuse("0 to 3 (1 stdout, 2 stderr), or RANK:0-3,...")
    pairs = (pair.split(":") for pair in text.split(","))
    chosen = {int(rank): _STREAMS[number] for rank, number in pairs}
    if max(chosen) >= worker_count:
        Origin(text, f"--{name}").refuse(f"ranks below the {worker_count} workers of this launcher")
    return chosen


def _console_ranks(values: Values, worker_count: int) -> frozenset[int] | None:
    said = values.origin("local-ranks-filter")
    if said is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", said.text):
        said.refuse("local ranks such as 0,1,2")
    ranks = frozenset(map(int, said.text.split(",")))
    if max(ranks) >= worker_count:
        said.refuse(f"local ranks below the {worker_count} workers of this launcher")
    return ranks


def _environment(
    environ: Mapping[str, str], worker_count: int
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what workers inherit; with several of them, one thread each unless told."""
    if worker_count == 1 or "OMP_NUM_THREADS" in environ:
        return dict(environ), ()
    notice = (
        f"OMP_NUM_THREADS is not set: 1 for each of the {worker_count} workers, so that they do "
        "not crowd the machine; set it to tune that"
    )
    return {**environ, "OMP_NUM_THREADS": "1"}, (notice,)


def _notices(values: Values) -> tuple[str, ...]:
    notices: list[str] = []
    if values.text("backend") == "nccl":
        notices.append("--backend nccl is experimental: it has not been measured")
    if values.origin("monitor-interval"):
        values.seconds("monitor-interval")
        notices.append(_MONITOR_NOTICE)
    return tuple(notices)
