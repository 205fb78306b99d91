"""Where launchers run: what each says of itself, completed by what the record says of its node.

A launcher knows the name of its node at best. The operator, which may read nodes, writes the path
of each into the arbiter's record, possibly after the launchers have started.
"""

from collections.abc import Mapping

from dssync.schedule import Place

UNNAMED = "-"
"""A level of a path that the node has no label for."""


def located(place: Place, paths: Mapping[str, str]) -> Place:
    """Return a place with zone and rack; what the launcher itself said of either wins.

    Args:
        place: as the launcher announced it.
        paths: name of a node to its labels from the outermost level inwards, such as
            ``zone-a/rack-7``; the innermost one counts as the rack.
    """
    if any(place.rack_path) or place.node not in paths:
        return place
    *outer, rack = ("" if level == UNNAMED else level for level in paths[place.node].split("/"))
    return Place("/".join(outer), rack, place.node)
