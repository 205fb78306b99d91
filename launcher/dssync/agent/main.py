"""From settings to an exit code: registry, endpoint, launcher, last word."""

from dssync.agent import office, termination
from dssync.agent.endpoint import MetricsEndpoint
from dssync.agent.launcher import Launcher
from dssync.agent.metrics import Metrics
from dssync.agent.replay import Replay
from dssync.agent.report import Reporter
from dssync.agent.settings import Settings


async def run(settings: Settings) -> int:
    """Run a pod to its end and return the exit code of its main process."""
    metrics = Metrics()
    reporter = Reporter(metrics)
    for notice in settings.notices:
        reporter.tell(notice)
    settings = await office.with_address(settings, reporter)
    for warning in office.warnings_for(settings):
        reporter.tell(warning)
    endpoint = None
    supervision = settings.supervision
    if supervision.metrics_port is not None:
        host = settings.control.address
        endpoint = await MetricsEndpoint.open(metrics.registry, host, supervision.metrics_port)
        reporter.log("metrics", address=f"{host}:{endpoint.port}")
    try:
        played = settings.history.replay is not None
        verdict = await (Replay if played else Launcher)(settings, reporter).run()
    finally:
        if endpoint is not None:
            await endpoint.close()
    reporter.summary(verdict)
    if supervision.termination_log is not None:
        message = termination.Termination(verdict.name, verdict.reason, verdict.exit_code, 0)
        termination.write(supervision.termination_log, message)
    return verdict.process_exit_code
