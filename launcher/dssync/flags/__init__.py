"""Flags and variables of ``dssync run``, checked and turned into ``Settings``.

``table`` lists the flags, ``values`` reads single values, ``build`` puts the settings together.
"""

from dssync.flags.build import parse

__all__ = ["parse"]
