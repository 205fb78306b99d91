"""What importing the operator costs, and what it must not need."""

import subprocess
import sys

PROBE = """
import re, sys, time
before = time.process_time()
import dssync_operator.__main__
spent = time.process_time() - before
# Not ru_maxrss, which keeps the size that the parent had when it forked.
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(spent, peak, "torch" in sys.modules)
"""


def test_importing_the_operator_is_light_and_needs_no_torch() -> None:
    # CPU time, and the least of a few runs: the rest is what other processes of this machine cost.
    runs = (probe() for _ in range(5))
    seconds, kilobytes, torch = next((run for run in runs if run[0] < 1.5), probe())

    assert not torch
    assert kilobytes < 100 * 1024
    assert seconds < 1.5


def probe() -> tuple[float, int, bool]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    seconds, kilobytes, torch = done.stdout.split()
    return float(seconds), int(kilobytes), torch == "True"


def test_operator_runs_where_torch_cannot_be_imported() -> None:
    blocked = "import sys; sys.modules['torch'] = None; import dssync_operator.__main__"

    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, timeout=60)

    assert done.returncode == 0, done.stderr
