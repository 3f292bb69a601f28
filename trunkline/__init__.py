"""Trunkline: terminals and byte streams of sandboxes that survive the cut.

`open_client` is where programs begin; see `trunkline.sdk.client`.
"""

from relay.attachment_stream import AttachmentStream
from relay.client import TrunkState, TrunkStatus
from relay.client_attachment import ClientAttachment
from relay.endpoint import Channel, ExitStatus, Kind, Overflow, TerminalSize
from relay.errors import AttachmentClosed, AttachRefused, InputUncertain, RelayError
from relay.file_problems import FileProblem
from relay.file_stream import FileFailed
from relay.grant import Mode
from relay.inbox import Missed, Output, ScreenOutput
from relay.protocol.reasons import CloseReason, Refusal
from trunkline.sdk.api import SessionInfo
from trunkline.sdk.client import Client, Completed, Connection, Session, open_client
from trunkline.sdk.errors import ApiError, ServerNotFound, ServerUnreachable, TrunklineError
from trunkline.sdk.files import FileInfo, Files
from trunkline.version import VERSION

__version__ = VERSION

__all__ = [
    "ApiError",
    "AttachRefused",
    "AttachmentClosed",
    "AttachmentStream",
    "Channel",
    "Client",
    "ClientAttachment",
    "CloseReason",
    "Completed",
    "Connection",
    "ExitStatus",
    "FileFailed",
    "FileInfo",
    "FileProblem",
    "Files",
    "InputUncertain",
    "Kind",
    "Missed",
    "Mode",
    "Output",
    "Overflow",
    "Refusal",
    "RelayError",
    "ScreenOutput",
    "ServerNotFound",
    "ServerUnreachable",
    "Session",
    "SessionInfo",
    "TerminalSize",
    "TrunkState",
    "TrunkStatus",
    "TrunklineError",
    "__version__",
    "open_client",
]
