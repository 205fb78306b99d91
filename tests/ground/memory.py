"""What objects of the operator hold on to."""

import gc

CONTAINERS = (dict, list, tuple, set, frozenset)


def remembered(root: object) -> set[str]:
    """Every text that the operator's own objects hold."""
    seen: set[int] = set()
    found: set[str] = set()
    left = [root]
    while left:
        each = left.pop()
        if isinstance(each, str):
            found.add(each)
        ours = type(each).__module__.startswith("dssync_operator")
        if id(each) not in seen and (ours or isinstance(each, CONTAINERS)):
            seen.add(id(each))
            left += gc.get_referents(each)
            if isinstance(each, dict):
                left += each  # the collector leaves out keys that are texts
    return found
