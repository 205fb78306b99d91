"""The launcher starts in milliseconds and never holds a device: it does not import torch."""

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
import dssync
names = [module.name for module in pkgutil.walk_packages(dssync.__path__, "dssync.")
         if not module.name.startswith("dssync.worker") and not module.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
assert {"dssync.flags", "dssync.agent.supervisor", "dssync.control"} <= set(names), names
print(sorted(name for name in ("torch", "numpy") if name in sys.modules))
"""


def test_nothing_but_the_worker_library_imports_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("[]\n", "")
