"""The two log formats: what is written, what is read back, what a kill leaves behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dockpy.shim import log
from dockpy.shim.log import Entry, LocalReader, LogDamaged
from dockpy.shim.logjson import JsonFileReader, parse_rfc3339
from dockpy.shim.logwriter import JsonFileWriter, LocalWriter, serials
from dockpy.shim.packed import pack_json, pack_local

SECOND = 1_000_000_000


def write(writer: LocalWriter | JsonFileWriter, *chunks: tuple[int, bytes, int]) -> None:
    for stream, data, now in chunks:
        writer.append(stream, memoryview(data), now)


def local(folder: Path, *chunks: tuple[int, bytes, int]) -> str:
    writer = LocalWriter(str(folder), 0, 1)
    write(writer, *chunks)
    writer.close()
    return str(folder)


def texts(reader: LocalReader | JsonFileReader) -> list[bytes]:
    found = [entry.data for entry in reader.entries()]
    found += [entry.data for entry in reader.finish()]
    reader.close()
    return found


def test_neighbours_of_one_stream_are_one_range(tmp_path: Path) -> None:
    folder = local(tmp_path, (1, b"a\n", 1), (1, b"b\n", 2), (2, b"e\n", 3), (1, b"c\n", 4))
    reader = LocalReader(folder)
    runs = reader.runs()
    assert [(run.stream, run.read(), run.time) for run in runs] == [
        (1, b"a\nb\n", 1),
        (2, b"e\n", 3),
        (1, b"c\n", 4),
    ]
    assert reader.runs() == []
    reader.close()


def test_lines_bear_the_time_of_their_first_byte(tmp_path: Path) -> None:
    folder = local(tmp_path, (1, b"a\nb", 1), (2, b"e\n", 2), (1, b"b\nc", 3))
    reader = LocalReader(folder)
    assert list(reader.entries()) == [
        Entry(1, 1, b"a\n"),
        Entry(2, 2, b"e\n"),
        Entry(1, 1, b"bb\n"),
    ]
    assert list(reader.finish()) == [Entry(1, 3, b"c")]


def test_long_lines_come_in_pieces_of_16_kib(tmp_path: Path) -> None:
    folder = local(tmp_path, (1, b"x" * 20000, 1), (1, b"x" * 20000 + b"\nend\n", 2))
    assert [len(text) for text in texts(LocalReader(folder))] == [16384, 16384, 40001 - 32768, 4]


@pytest.mark.parametrize("tail", [0, 1, 2, 3, 4, 5, 6, 100])
def test_tail_counts_lines_of_the_wanted_streams(tmp_path: Path, tail: int) -> None:
    folder = local(tmp_path, (1, b"1\n2\n", 1), (2, b"e\n", 2), (1, b"3\n", 3), (1, b"4\n5", 4))
    lines = [b"1\n", b"2\n", b"3\n", b"4\n", b"5"]
    assert (
        texts(LocalReader(folder, tail=tail, streams=frozenset([1]))) == lines[max(5 - tail, 0) :]
    )
    everything = [b"1\n", b"2\n", b"e\n", b"3\n", b"4\n", b"5"]
    assert texts(LocalReader(folder, tail=tail)) == everything[max(6 - tail, 0) :]
    reader = LocalReader(folder, tail=tail)
    assert b"".join(run.read() for run in reader.runs()) == b"".join(everything[max(6 - tail, 0) :])


def test_tail_over_many_files_and_blocks(tmp_path: Path) -> None:
    writer = LocalWriter(str(tmp_path), 100_000, 10)
    lines = [b"line %d\n" % number for number in range(60_000)]
    for start in range(0, 60_000, 7):
        writer.append(1, memoryview(b"".join(lines[start : start + 7])), start + 1)
    assert len(serials(str(tmp_path))) > 5
    for tail in (1, 10, 9_999, 30_000, 59_999, 60_000, 70_000):
        assert texts(LocalReader(str(tmp_path), tail=tail)) == lines[-tail:]


def test_since_and_until(tmp_path: Path) -> None:
    folder = local(tmp_path, *((1, b"%d\n" % at, at * SECOND) for at in range(1, 10_001)))
    found = texts(LocalReader(folder, since=5 * SECOND, until=8 * SECOND))
    assert found == [b"5\n", b"6\n", b"7\n", b"8\n"]
    assert texts(LocalReader(folder, since=9_999 * SECOND)) == [b"9999\n", b"10000\n"]
    assert texts(LocalReader(folder, since=10_001 * SECOND)) == []
    assert texts(LocalReader(folder, until=SECOND // 2)) == []


def test_a_reader_goes_on_where_it_stood(tmp_path: Path) -> None:
    writer = LocalWriter(str(tmp_path), 1000, 3)
    reader = LocalReader(str(tmp_path))
    for number in range(200):
        writer.append(1, memoryview(b"%d\n" % number), number)
        assert b"".join(run.read() for run in reader.runs()) == b"%d\n" % number
        assert reader.position() == writer.position()


def test_rotation_keeps_so_many_files_and_a_slow_reader_loses_only_the_oldest(
    tmp_path: Path,
) -> None:
    writer = LocalWriter(str(tmp_path), 1000, 3)
    slow = LocalReader(str(tmp_path))
    slow.runs()
    for number in range(1000):
        writer.append(1, memoryview(b"%05d\n" % number), number)
    assert len(serials(str(tmp_path))) == 3
    assert sum(path.stat().st_size for path in tmp_path.glob("*.data")) <= 3 * 1006
    numbers = [int(text) for text in texts(LocalReader(str(tmp_path)))]
    assert numbers == list(range(numbers[0], 1000))
    found = texts(slow)
    assert int(found[-1]) == 999


def test_a_writer_goes_on_in_the_same_files(tmp_path: Path) -> None:
    local(tmp_path, (1, b"a\n", 1))
    folder = local(tmp_path, (2, b"b\n", 2))
    assert texts(LocalReader(folder)) == [b"a\n", b"b\n"]


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_torn_record_is_cut_with_its_bytes(tmp_path: Path, cut: int) -> None:
    folder = local(tmp_path, (1, b"whole\n", 1), (1, b"torn\n", 2))
    index = tmp_path / "0.index"
    os.truncate(index, index.stat().st_size - cut)
    local(tmp_path, (1, b"next\n", 3))
    assert texts(LocalReader(folder)) == [b"whole\n", b"next\n"]


def test_bytes_without_a_record_and_records_without_bytes_are_cut(tmp_path: Path) -> None:
    folder = local(tmp_path, (1, b"whole\n", 1), (1, b"lost\n", 2))
    with (tmp_path / "0.data").open("ab") as file:
        file.write(b"no record")
    local(tmp_path, (1, b"next\n", 3))
    assert texts(LocalReader(folder)) == [b"whole\n", b"lost\n", b"next\n"]
    os.truncate(tmp_path / "0.data", 8)
    local(tmp_path, (1, b"last\n", 4))
    assert texts(LocalReader(folder)) == [b"whole\n", b"last\n"]


def test_no_room_leaves_no_half_record(tmp_path: Path) -> None:
    import resource
    import signal

    writer = LocalWriter(str(tmp_path), 0, 1)
    write(writer, (1, b"fits\n", 1))
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        write(writer, (1, b"x" * 200 + b"\n", 2), (1, b"also fits\n", 3))
        os._exit(0)
    os.waitpid(pid, 0)
    hole = b"dockpy: 201 bytes of output are missing here: File too large\n"
    assert texts(LocalReader(str(tmp_path))) == [b"fits\n", hole, b"also fits\n"]


# --------------------------------------------------------------------------------- json-file


def records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_docker_s_bytes(tmp_path: Path) -> None:
    writer = JsonFileWriter(str(tmp_path / "log"), 0, 1)
    text = b'q"\\\x01<>&\t\r\x7f\xff\xe2\x80\xa8\xe2\x82\xc3\xa9\n'
    write(writer, (2, text, 1_700_000_000 * SECOND + 120_000_000))
    assert (tmp_path / "log").read_bytes() == (
        rb'{"log":"q\"\\\u0001\u003c\u003e\u0026\u0009\r'
        + b"\x7f"
        + rb"\ufffd\u2028\ufffd\ufffd"
        + b"\xc3\xa9"
        + rb'\n","stream":"stderr","time":"2023-11-14T22:13:20.12Z"}'
        + b"\n"
    )


def test_a_backslash_before_an_n_is_no_newline(tmp_path: Path) -> None:
    writer = JsonFileWriter(str(tmp_path / "log"), 0, 1)
    write(writer, (1, b"a\\nb\nc\\\n\n", 1))
    assert [record["log"] for record in records(tmp_path / "log")] == ["a\\nb\n", "c\\\n", "\n"]


@pytest.mark.parametrize("chunk", [1, 7, 4096, 16383, 16384, 16385, 1 << 20])
def test_the_16_kib_rule_whatever_the_reads(tmp_path: Path, chunk: int) -> None:
    data = b"s\n" + b"x" * 16384 + b"\n" + b"y" * 16383 + b"\n" + b"z" * 40000 + b"\nend"
    if chunk == 1:
        data = data[:18000]
    writer = JsonFileWriter(str(tmp_path / "log"), 0, 1)
    for start in range(0, len(data), chunk):
        write(writer, (1, data[start : start + chunk], start))
    writer.end(1)
    expected = []
    for line in data.split(b"\n"):
        pieces = [line[at : at + 16384] for at in range(0, len(line), 16384)]
        if len(line) % 16384 == 0:
            pieces.append(b"")
        expected += [piece.decode() for piece in pieces[:-1]] + [pieces[-1].decode() + "\n"]
    expected[-1] = expected[-1].rstrip("\n")  # the end of the stream is no newline
    if not expected[-1]:
        expected.pop()
    assert [record["log"] for record in records(tmp_path / "log")] == expected


def test_pieces_of_a_line_bear_the_time_of_its_first(tmp_path: Path) -> None:
    writer = JsonFileWriter(str(tmp_path / "log"), 0, 1)
    write(
        writer, (1, b"x" * 16384, SECOND), (1, b"x" * 16384, 2 * SECOND), (1, b"\nn\n", 3 * SECOND)
    )
    times = [parse_rfc3339(record["time"]) for record in records(tmp_path / "log")]
    assert times == [SECOND, SECOND, SECOND, 3 * SECOND]


def test_streams_do_not_mix_within_a_line(tmp_path: Path) -> None:
    writer = JsonFileWriter(str(tmp_path / "log"), 0, 1)
    write(writer, (1, b"ab", 1), (2, b"cd", 2), (1, b"\n", 3), (2, b"\n", 4))
    found = [(record["stream"], record["log"]) for record in records(tmp_path / "log")]
    assert found == [("stdout", "ab\n"), ("stderr", "cd\n")]


def test_json_rotation_and_reading_it_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path), 2000, 3)
    lines = [b"%04d\n" % number for number in range(500)]
    for at, line in enumerate(lines):
        write(writer, (1, line, at))
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    found = texts(JsonFileReader(str(path)))
    assert found == lines[-len(found) :]
    assert len(found) > 50
    for tail in (0, 1, 5, 40):
        assert texts(JsonFileReader(str(path), tail=tail)) == lines[len(lines) - tail :]


def test_a_json_reader_follows_rotation(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 500, 3)
    reader = JsonFileReader(path)
    for number in range(100):
        write(writer, (1, b"%d\n" % number, number))
        assert [entry.data for entry in reader.entries()] == [b"%d\n" % number]
        assert reader.position() == writer.position()


def test_json_streams_since_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path), 0, 1)
    write(writer, (1, b"a\n", SECOND), (2, b"b\n", 2 * SECOND), (1, b"c\n", 3 * SECOND))
    with path.open("ab") as file:
        file.write(b'{"log":"to\n')
    assert texts(JsonFileReader(str(path))) == [b"a\n", b"b\n", b"c\n"]
    assert texts(JsonFileReader(str(path), streams=frozenset([2]))) == [b"b\n"]
    assert texts(JsonFileReader(str(path), since=2 * SECOND)) == [b"b\n", b"c\n"]
    assert texts(JsonFileReader(str(path), until=2 * SECOND)) == [b"a\n", b"b\n"]


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000 * SECOND + 5, "2023-11-14T22:13:20.000000005Z"),
        (1_709_210_096 * SECOND + 500_000_000, "2024-02-29T12:34:56.5Z"),
    ],
)
def test_times(now: int, text: str) -> None:
    assert log.rfc3339_nano(now) == text
    assert parse_rfc3339(text) == now
    assert parse_rfc3339(log.rfc3339_nano(now, fixed=True)) == now


# ------------------------------------------------------------------- what others do to the files


def always(_status: os.stat_result) -> bool:
    return True


def test_compressed_files_are_read_as_if_they_were_not(tmp_path: Path) -> None:
    writer = LocalWriter(str(tmp_path), 1000, 50)
    lines = [b"%05d\n" % number for number in range(2000)]
    for at, line in enumerate(lines):
        writer.append(1, memoryview(line), at + 1)
    pack_local(str(tmp_path), always)
    assert len(list(tmp_path.glob("*.data"))) == 1
    assert len(list(tmp_path.glob("*.data.gz"))) > 5
    assert texts(LocalReader(str(tmp_path))) == lines
    assert texts(LocalReader(str(tmp_path), tail=700)) == lines[-700:]


def test_compressed_json_files_are_dockers_and_keep_their_place(tmp_path: Path) -> None:
    import gzip

    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 2000, 9, '{"a":"b"}')
    lines = [b"%04d\n" % number for number in range(100)]
    for at, line in enumerate(lines[:60]):
        write(writer, (1, line, at))
    with gzip.open(_packed(path, "1"), "rb") as file:
        first = file.readline()
    assert b'"stream":"stdout","attrs":{"a":"b"},"time":' in first
    for at, line in enumerate(lines[60:]):
        write(writer, (1, line, at + 60))
    assert texts(JsonFileReader(path)) == lines


def _packed(path: str, number: str) -> str:
    pack_json(path, always)
    return f"{path}.{number}.gz"


def test_a_json_reader_follows_through_rotation_and_compression(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 300, 6)
    reader = JsonFileReader(path)
    found = []
    for number in range(60):
        write(writer, (1, b"%d\n" % number, number))
        pack_json(path, always)
        if number % 7 == 0:
            found += [entry.data for entry in reader.entries()]
    found += [entry.data for entry in reader.entries()]
    assert found == [b"%d\n" % number for number in range(60)]


def test_one_json_file_only_is_read_to_its_end_before_the_next(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 200, 1)
    reader = JsonFileReader(path)
    found = []
    for number in range(30):
        write(writer, (1, b"%d\n" % number, number))
        found += [entry.data for entry in reader.entries()]
    assert found == [b"%d\n" % number for number in range(30)]
    assert os.listdir(tmp_path) == ["log"]


def test_json_files_end_with_the_record_that_fills_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path), 1000, 100)
    write(writer, (1, b"y\n" * 500, 1))
    sizes = [file.stat().st_size for file in tmp_path.iterdir() if file != path]
    assert len(sizes) > 20
    assert len(set(sizes)) == 1
    assert 1000 <= sizes[0] < 1000 + len(records(path)[0]) + 80


@pytest.mark.parametrize("driver", ["local", "json"])
def test_a_mark_is_where_another_reader_goes_on(tmp_path: Path, driver: str) -> None:
    path = str(tmp_path / "log")

    def reader(**more: object) -> LocalReader | JsonFileReader:
        kind = LocalReader if driver == "local" else JsonFileReader
        return kind(path, **more)  # type: ignore[arg-type]  # of either

    writer = LocalWriter(path, 500, 9) if driver == "local" else JsonFileWriter(path, 900, 9)
    write(writer, (1, b"1\n2\n3\n", 1))
    first = reader(tail=2)
    assert [entry.data for entry in first.entries()] == [b"2\n", b"3\n"]
    mark = first.mark()
    assert mark
    for number in range(4, 40):
        write(writer, (1, b"%d\n" % number, number))
    assert texts(reader(start=mark)) == [b"%d\n" % number for number in range(4, 40)]
    assert len(texts(reader(start="99.0.0"))) == 39  # a place that is gone: from the oldest on


def test_a_clock_that_jumps_back_hides_nothing(tmp_path: Path) -> None:
    folder = local(tmp_path, (1, b"a\n", 50), (1, b"b\n", 10), (1, b"c\n", 60))
    assert texts(LocalReader(folder, since=40)) == [b"a\n", b"c\n"]
    assert texts(LocalReader(folder, until=55)) == [b"a\n", b"b\n"]


def test_a_log_that_somebody_has_cut_is_told(tmp_path: Path) -> None:
    folder = local(tmp_path, (1, b"a\n", 1), (1, b"b\n", 2))
    os.truncate(tmp_path / "0.data", 2)
    reader = LocalReader(folder)
    assert next(reader.entries()).data == b"a\n"
    with pytest.raises(LogDamaged, match="somebody has cut it"):
        list(reader.entries())


def test_a_log_that_somebody_has_emptied_goes_on(tmp_path: Path) -> None:
    writer = LocalWriter(str(tmp_path), 0, 1)
    reader = LocalReader(str(tmp_path))
    write(writer, (1, b"a\n", 1), (1, b"b\n", 2))
    assert [entry.data for entry in reader.entries()] == [b"a\n", b"b\n"]
    os.truncate(tmp_path / "0.data", 0)
    write(writer, (1, b"c\n", 3))
    assert [entry.data for entry in reader.entries()] in ([], [b"c\n"])
    assert texts(LocalReader(str(tmp_path))) == [b"c\n"]


def test_json_notes_a_hole_and_goes_on(tmp_path: Path) -> None:
    import resource
    import signal

    writer = JsonFileWriter(str(tmp_path / "log"), 0, 1)
    write(writer, (1, b"fits\n", 1))
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
        write(writer, (1, b"x" * 600 + b"\n", 2), (1, b"also fits\n", 3))
        os._exit(0)
    os.waitpid(pid, 0)
    found = [record["log"] for record in records(tmp_path / "log")]
    assert found[0] == "fits\n"
    assert found[1].endswith("bytes of output are missing here: File too large\n")
    assert found[2] == "also fits\n"


def test_texts_are_the_lines_without_times(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path), 0, 1)
    write(writer, (1, b"a\nb\n", 1), (2, b"e\n", 2), (1, b"c\n", 3))
    assert JsonFileReader(str(path)).texts() == [(1, b"a\nb\n"), (2, b"e\n"), (1, b"c\n")]
    assert JsonFileReader(str(path), streams=frozenset([1])).texts()[-1] == (1, b"c\n")
    assert JsonFileReader(str(path), since=2).texts() == [(2, b"e\n"), (1, b"c\n")]
    with path.open("ab") as file:
        file.write(b'{"log":"to\n')
    assert b"".join(text for _, text in JsonFileReader(str(path)).texts()) == b"a\nb\ne\nc\n"
