"""Who averages with whom in which round, as pure functions of the members' places.

Every member computes the same groups from the same view, without any communication:
``plan`` gives the training rounds and ``flush`` the rounds after which all hold the exact mean;
a ``Layout`` keeps positions, hence groups, while members come and go.
Standard library only.

Source: DS-Sync (arXiv 2007.03298) for rows and columns that alternate; ragged sizes, weights and
topology are this project's.
"""

from dssync.schedule.layout import (
    Cell,
    Layout,
    groups_of,
    needs_replan,
    occupy,
    plan_of,
    replan,
    vacate,
)
from dssync.schedule.modes import plan
from dssync.schedule.plans import MODES, Place, Plan, Settings, WeightedGroup
from dssync.schedule.receivers import flush
from dssync.schedule.validate import validate

__all__ = [
    "MODES",
    "Cell",
    "Layout",
    "Place",
    "Plan",
    "Settings",
    "WeightedGroup",
    "flush",
    "groups_of",
    "needs_replan",
    "occupy",
    "plan",
    "plan_of",
    "replan",
    "vacate",
    "validate",
]
