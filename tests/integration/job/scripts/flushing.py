"""Trains as ``training.py`` does, and announces each sum of a flush before it begins.

A flush is one round with several sums: no line of a board tells them apart otherwise.
"""

import importlib

from voice import announce

from dssync.control.messages import Assign, Stage
from dssync.worker.round import RoundEngine

_sum = RoundEngine._sum


def announced(engine: RoundEngine, assign: Assign, stage: Stage, *others: object) -> bool:
    if assign.kind == "flush":
        told = {"round": assign.round, "attempt": assign.attempt, "group": stage.communicator}
        announce("sum", stage=assign.stages.index(stage), **told)
    return _sum(engine, assign, stage, *others)


RoundEngine._sum = announced
importlib.import_module("training")
