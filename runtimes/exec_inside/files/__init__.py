"""The files of a sandbox, by programs inside it."""

from runtimes.exec_inside.files import drafts as _drafts  # registers its kind of draft
from runtimes.exec_inside.files.session import InnerFiles, open_inner_files

__all__ = ["InnerFiles", "open_inner_files"]

del _drafts
