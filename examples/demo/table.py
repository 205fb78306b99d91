"""The demo's last words."""

_EXPLANATIONS = {
    "kill": "SIGKILL of a worker -> its group re-formed",
    "join": "pod wanted -> first committed round",
    "drain": "SIGTERM to a launcher -> gone",
}


def shortcomings(report: dict[str, object]) -> list[str]:
    """Return what the demo promises and the run did not keep."""
    restarted, found = report["survivors_restarted"], []
    if restarted:
        found.append(f"{restarted} survivors were restarted")
    if not report["samples_seen_once"]:
        found.append("not every sample was committed once in each epoch")
    return found


def print_table(report: dict[str, object]) -> None:
    """Print what ``build/demo.json`` holds for people to read."""
    events = report["events"]
    print(f"\n{'event':<46}{'milliseconds':>14}{'rounds lost elsewhere':>24}")
    for event in events if isinstance(events, list) else []:
        name = _EXPLANATIONS[event["kind"]]
        print(f"{name:<46}{event['milliseconds']:>14.1f}{event['rounds_lost_elsewhere']:>24}")
    print(f"\nsurvivors restarted                 {report['survivors_restarted']}")
    print(f"every sample once in each epoch     {report['samples_seen_once']}")
    print(f"accuracy of the mean model          {report['accuracy']:.4f}")
    print(f"accuracy with allreduce, no faults  {report['accuracy_allreduce']:.4f}")
    print(f"took {report['seconds']} s; the same figures are in build/demo.json")
