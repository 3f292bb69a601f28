"""What sandbox a session needs, by its profile."""

from __future__ import annotations

from runtimes.base import SandboxSpec
from sessions.profiles import Profile
from sessions.record import SessionRecord


def spec_of(
    record: SessionRecord, profile: Profile, *, keep_home: bool | None = None
) -> SandboxSpec:
    """Return the sandbox that the session of `record` needs.

    `keep_home` goes before the profile: what a session has kept stays, whatever became of its
    profile since.
    """
    return SandboxSpec(
        session_id=record.session_id,
        shell=profile.command,
        environment=profile.environment,
        directory=profile.directory,
        image=record.image_ref or profile.image,
        runtime=record.runtime if keep_home else profile.runtime,
        root=profile.root,
        limits=profile.resources,
        mounts=profile.mounts,
        network=profile.network,
        keep_home=profile.keep_home if keep_home is None else keep_home,
        vnc=profile.vnc_of(record.session_id),
        desktop=profile.desktop,
    )
