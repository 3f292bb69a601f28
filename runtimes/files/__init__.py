"""Files of a sandbox: operations beneath a root, and the endpoints that carry them out."""

from runtimes.files.session import SessionFiles, open_session_files

__all__ = ["SessionFiles", "open_session_files"]
