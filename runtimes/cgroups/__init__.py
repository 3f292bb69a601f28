"""Control groups of Linux, versions 1 and 2: what the processes of a sandbox may use together."""

from runtimes.cgroups.groups import CannotEnforce, ControlGroup, ControlGroups, Hierarchy
from runtimes.cgroups.tree import find_groups

__all__ = ["CannotEnforce", "ControlGroup", "ControlGroups", "Hierarchy", "find_groups"]
