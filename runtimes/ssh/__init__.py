"""The ``ssh`` runtime: sandboxes that are processes of an account on another machine."""

from runtimes.ssh.host import SshHost
from runtimes.ssh.runtime import SshRuntime

__all__ = ["SshHost", "SshRuntime"]
