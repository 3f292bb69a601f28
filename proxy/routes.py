"""Which paths are WebSockets: the tables of routes, one after the other."""

from __future__ import annotations

from proxy.upgrade import DataPlane, Routes


class RouteTables:
    """Tries several tables in order; the first that knows a path serves it."""

    def __init__(self, *tables: Routes) -> None:
        self._tables = tables

    def match(self, path: str) -> DataPlane | None:
        """See `proxy.upgrade.Routes`."""
        for table in self._tables:
            handler = table.match(path)
            if handler is not None:
                return handler
        return None
