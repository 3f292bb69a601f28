"""The files of a container, by programs inside it."""

from runtimes.container.files import drafts as _drafts  # registers its kind of draft
from runtimes.container.files.session import ContainerFiles, open_container_files

__all__ = ["ContainerFiles", "open_container_files"]

del _drafts
