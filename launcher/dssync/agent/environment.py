"""The variables that a worker starts with.

They are torchrun's, as **start values**: membership changes while a worker lives and its
environment does not. A script that averages with ``GroupSync`` needs none of them but
``LOCAL_RANK``, to choose its device.
"""

from dssync import contract
from dssync.agent.settings import Settings
from dssync.control.address import endpoint_of


def worker_environment(settings: Settings, local_rank: int, restarts: int) -> dict[str, str]:
    """Return the complete environment of a worker.

    Args:
        settings: The launcher's settings; ``settings.environment`` is inherited.
        local_rank: Index of the worker in its launcher.
        restarts: How often this worker was started before.
    """
    return {
        **_master(settings),
        **_transports(settings, local_rank),
        **settings.environment,
        **_ranks(settings, local_rank),
        **_elastic(settings, restarts),
    }


def _master(settings: Settings) -> dict[str, str]:
    """Say where a script that makes its own process group may let rank 0 listen.

    dssync itself listens on the port below; without an endpoint it is torch's usual port. Who
    sets these variables for the launcher knows better. A file says nothing about addresses.
    """
    if settings.control.arbiter != "static":
        return {}
    host, port = settings.control.address, 29500
    if settings.control.arbiter_target:
        host, port = endpoint_of(settings.control.arbiter_target)
        port += 1
    return {"MASTER_ADDR": host, "MASTER_PORT": str(port)}


def _transports(settings: Settings, local_rank: int) -> dict[str, str]:
    """Tell gloo and NCCL where to listen, and torch to leave a failed NCCL group alone.

    Whoever sets one of these for the launcher knows better.
    """
    variables = {}
    if settings.control.interface:
        name = settings.control.interface
        variables = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}
    if settings.sync.backend != "gloo":
        variables |= {
            # Its watchdog would end the process for a mate's death, its monitor for a slow one.
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
            "TORCH_NCCL_ENABLE_MONITORING": "0",
            "TORCH_NCCL_RETHROW_CUDA_ERRORS": "0",
        }
    if settings.sync.backend == "nccl" and settings.sync.shares_gpus:
        # NCCL refuses two ranks of one host on one device. To be tried on a GPU.
        variables["NCCL_HOSTID"] = f"{settings.job.slot}-{local_rank}"
    return variables


def _ranks(settings: Settings, local_rank: int) -> dict[str, str]:
    local_world = settings.world.nproc_per_node
    world = settings.world.desired * local_world
    rank = settings.job.slot * local_world + local_rank
    numbers = {
        "RANK": rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": local_world,
        "GROUP_RANK": settings.job.slot,
        "GROUP_WORLD_SIZE": settings.world.desired,
        "ROLE_RANK": rank,
        "ROLE_WORLD_SIZE": world,
    }
    return {"ROLE_NAME": settings.supervision.role} | {k: str(v) for k, v in numbers.items()}


def _elastic(settings: Settings, restarts: int) -> dict[str, str]:
    return {
        "TORCHELASTIC_RESTART_COUNT": str(restarts),
        "TORCHELASTIC_MAX_RESTARTS": str(settings.supervision.max_restarts),
        "TORCHELASTIC_RUN_ID": settings.job.run_id,
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        contract.ENV_SLOT: str(settings.job.slot),
    }
