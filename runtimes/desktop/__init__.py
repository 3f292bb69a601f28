"""Desktops: starting one when it is first looked at, and letting viewers only look."""

from runtimes.desktop.sandbox import DesktopSandbox, DesktopStatistics, open_desktop

__all__ = ["DesktopSandbox", "DesktopStatistics", "open_desktop"]
