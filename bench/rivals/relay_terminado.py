"""A terminal server on terminado, a terminal for each WebSocket.  Arguments: PORT COMMAND..."""

from __future__ import annotations

import importlib
import sys
from typing import Any

# Optional, so the type checker is not to look for them.
terminado: Any = importlib.import_module("terminado")
web: Any = importlib.import_module("tornado.web")
ioloop: Any = importlib.import_module("tornado.ioloop")


def main(port: int, command: list[str]) -> None:
    """Serve for ever."""
    manager = terminado.UniqueTermManager(shell_command=command)
    handler = terminado.TermSocket
    app = web.Application([(r"/ws", handler, {"term_manager": manager})])
    app.listen(port, "127.0.0.1")
    ioloop.IOLoop.current().start()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
