"""Frames, cut anywhere."""

from __future__ import annotations

import pytest

from dockpy.http.stdcopy import STDERR, STDOUT, BadFrame, FrameReader, frame

DATA = (
    frame(STDOUT, b"one") + frame(STDERR, b"") + frame(STDERR, b"two") + frame(STDOUT, b"x" * 70000)
)


@pytest.mark.parametrize("step", [1, 3, 8, 9, 4096, 1 << 20])
def test_frames_cut_anywhere(step: int) -> None:
    reader = FrameReader()
    got = {STDOUT: b"", STDERR: b""}
    for at in range(0, len(DATA), step):
        for stream, piece in reader.feed(DATA[at : at + step]):
            got[stream] += piece
    assert got == {STDOUT: b"one" + b"x" * 70000, STDERR: b"two"}
    assert reader.between_frames


def test_neighbours_of_one_stream_are_joined() -> None:
    data = frame(1, b"a") + frame(1, b"b") + frame(2, b"c") + frame(1, b"d")
    assert FrameReader().feed_grouped(data) == [(1, b"ab"), (2, b"c"), (1, b"d")]


@pytest.mark.parametrize(
    "data", [b"\x06\0\0\0\0\0\0\1x", b"\x01x\0\0\0\0\0\1x", b"plain text, no frames"]
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        FrameReader().feed(data)
