import hashlib
import json
import os
import subprocess
import sys

import pytest

from unit.schedule import golden

COMMITTED = json.loads(golden.PATH.read_text())


@pytest.mark.parametrize("part", list(golden.PARTS))
def test_the_vectors_are_those_that_earlier_releases_computed(part):
    computed = json.loads(json.dumps(golden.PARTS[part]()))

    assert computed == COMMITTED[part]


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_other_processes_compute_the_same_schedules(hash_seed):
    script = (
        "from dssync.schedule import Place, Settings, plan; from unit.schedule import golden\n"
        "for mode in golden.MODES:\n"
        "    places = tuple(Place('z', f'r{i % 5}', f'n{i}') for i in range(37))\n"
        "    print(golden.text_of(plan(places, Settings(mode, group_size=4, seed=3))))\n"
    )

    printed = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout
        for seed in ("0", hash_seed)
    ]

    assert len(printed[0].splitlines()) == len(golden.MODES)
    assert hashlib.sha256(printed[0]).digest() == hashlib.sha256(printed[1]).digest()
