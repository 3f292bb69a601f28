def unmask(
    data: bytearray | memoryview,
    position: int,
    end: int,
    remaining: int,
    key: bytes,
    state: int,
) -> tuple[int, int, int, int, bytes, int]: ...
