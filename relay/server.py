"""The owner's end of a link: turns events into calls on a stream host, under a grant."""

from __future__ import annotations

from functools import partial

import structlog
import trio

from relay.attachment import Attachment, Binding
from relay.carrier import Carrier
from relay.endpoint import Channel, TerminalSize
from relay.errors import AttachRefused
from relay.grant import Grant, Mode
from relay.host import StreamHost
from relay.link import Link, LinkEnd
from relay.protocol.connection import BytesReceived, Connection, Event
from relay.protocol.messages import (
    Attach,
    Credit,
    Detach,
    Fin,
    GoAway,
    Refused,
    Resize,
    Signal,
    Stop,
)
from relay.protocol.reasons import CloseReason
from relay.stream import Stream

logger = structlog.get_logger(__name__)


class _Attached:
    """A stream id of this link that is attached."""

    def __init__(self, stream: Stream, attachment: Attachment, binding: Binding) -> None:
        self.stream = stream
        self.attachment = attachment
        self.binding = binding


class ServerLink:
    """Serves one link.  `run` must be called once.

    `returns`: when the link is lost its client may come back, so its attachments linger.
    """

    def __init__(
        self,
        carrier: Carrier,
        host: StreamHost,
        grant: Grant,
        software: str,
        *,
        returns: bool = True,
    ) -> None:
        self.link = Link(carrier, Connection(dialer=False, software=software))
        self._host = host
        self.grant = grant
        self._returns = returns
        self._attached: dict[int, _Attached] = {}
        self._attaching: dict[int, trio.CancelScope] = {}

    async def run(self) -> LinkEnd:
        """Serve until the link ends; its attachments then linger for their clients to return.

        Cancellation: the same, without a goodbye.
        """
        try:
            async with trio.open_nursery() as nursery:
                end = await self.link.run(partial(self._handle, nursery))
                nursery.cancel_scope.cancel()
        finally:
            for attached in self._attached.values():
                self._lost(attached)
            self._attached.clear()
        return end

    def _lost(self, attached: _Attached) -> None:
        if attached.binding.closed:
            return
        if self._returns:
            attached.stream.unbind(attached.attachment)
        else:
            attached.stream.remove(attached.attachment, CloseReason.DETACHED)

    def _handle(self, nursery: trio.Nursery, event: Event) -> None:
        if isinstance(event, BytesReceived):
            self._received_bytes(event)
            return
        message = event.message
        if isinstance(message, Attach):
            nursery.start_soon(self._attach, event.stream, message)
            return
        if isinstance(message, GoAway):
            return  # the link knows
        if isinstance(message, Detach):
            self._detached(event.stream)
            return
        attached = self._attached.get(event.stream)
        if attached is None or attached.binding.closed:
            return
        attachment, stream = attached.attachment, attached.stream
        stream.heard_from(attachment)
        channel = event.channel
        match message:
            case Credit() if channel in stream.rings:
                attachment.received_credit(Channel(channel), message, trio.current_time())
                stream.acknowledged(Channel(channel), attachment)
            case Fin():
                stream.receive_input(attachment, None)
                attachment.acknowledge_input()
            case Resize() if attachment.mode is Mode.CONTROL:
                stream.resize(TerminalSize(message.columns, message.rows))
            case Signal() if attachment.mode is Mode.CONTROL:
                self._signal(attached, message)
            case Stop() if channel in stream.rings:
                attachment.ignore(Channel(channel), trio.current_time())
                stream.readers_changed()
            case _:
                pass

    def _received_bytes(self, event: BytesReceived) -> None:
        attached = self._attached.get(event.stream)
        if attached is not None and not attached.binding.closed:
            attached.stream.heard_from(attached.attachment)
            attached.stream.receive_input(attached.attachment, event.data)

    def _signal(self, attached: _Attached, message: Signal) -> None:
        attachment = attached.attachment
        if message.number <= attachment.signals:
            return  # sent again after a resume
        attachment.signals = message.number
        try:
            attached.stream.endpoint.send_signal(message.name)
        except ValueError as error:
            logger.info("unknown signal", signal=message.name, error=str(error))

    async def _attach(self, stream_id: int, request: Attach) -> None:
        binding = Binding(self.link, stream_id, self.grant)
        with trio.CancelScope() as scope:
            self._attaching[stream_id] = scope
            try:
                stream, attachment = await self._host.attach(request, binding)
            except AttachRefused as refusal:
                if binding.is_open:
                    self.link.connection.refuse(
                        stream_id, Refused(code=refusal.code, message=refusal.message)
                    )
                    self.link.wake()
            else:
                self._forget_closed()
                self._attached[stream_id] = _Attached(stream, attachment, binding)
            finally:
                del self._attaching[stream_id]

    def _forget_closed(self) -> None:
        closed = [id_ for id_, other in self._attached.items() if other.binding.closed]
        for id_ in closed:
            del self._attached[id_]

    def _detached(self, stream_id: int) -> None:
        attached = self._attached.pop(stream_id, None)
        if attached is not None:
            attached.stream.heard_from(attached.attachment)
            if not attached.binding.closed:
                attached.stream.remove(attached.attachment, CloseReason.DETACHED)
        elif stream_id in self._attaching:
            self._attaching[stream_id].cancel()
