"""A pull's progress in docker's words: `{"status","progressDetail","progress","id"}`, from the stages of its layers.

Nothing is told twice, and no stage is left out: where a layer has gone on by several since the last look,
all of them are told, in docker's order. Counting lines come at most each `TICK` seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import trio

from dockpy.images.transfer import (
    DONE,
    DOWNLOADED,
    DOWNLOADING,
    EXISTS,
    EXTRACTING,
    PULLING,
    VERIFYING,
    WAITING,
    Layer,
)

Line = Mapping[str, object]
Tell = Callable[[Line], Awaitable[None]]

TICK = 0.1
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_BAR = 50
_WORDS = {
    PULLING: "Pulling fs layer",
    WAITING: "Waiting",
    VERIFYING: "Verifying Checksum",
    DOWNLOADED: "Download complete",
    DONE: "Pull complete",
    EXISTS: "Already exists",
}


class Reporter:
    """Tells the layers' stages until `run` is cancelled; `finish` tells what is left."""

    def __init__(self, layers: Sequence[Layer], tell: Tell) -> None:
        self._rows = [_Row(layer) for layer in layers]
        self._tell = tell
        self._news = trio.Event()

    def news(self) -> None:
        self._news.set()

    async def begin(self) -> None:
        for row in self._rows:
            await self._tell(row.first())

    async def run(self) -> None:
        while True:
            with trio.move_on_after(TICK):
                await self._news.wait()
            self._news = trio.Event()
            await self._look()
            await trio.sleep(TICK / 4)  # several changes in one look

    async def _look(self) -> None:
        for row in self._rows:
            for line in row.changes():
                await self._tell(line)

    async def finish(self) -> None:
        """Everything is done: each layer's last words."""
        for row in self._rows:
            row.layer.stage = max(row.layer.stage, DONE)
        await self._look()


class _Row:
    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._id = layer.descriptor.digest.partition(":")[2][:12]
        self._told = PULLING
        self._counted = (-1, -1)
        self._retry = 0

    def first(self) -> Line:
        self._told = self.layer.stage if self.layer.stage == EXISTS else PULLING
        return self._line(_WORDS[self._told])

    def changes(self) -> Iterator[Line]:
        stage = self.layer.stage
        if self._told == EXISTS:
            return
        if stage == WAITING and self._told < WAITING:
            self._told = WAITING
            yield self._line(_WORDS[WAITING])
        if self.layer.retry_in and self.layer.retry_in != self._retry:
            self._retry = self.layer.retry_in
            seconds = "second" if self._retry == 1 else "seconds"
            yield self._line(f"Retrying in {self._retry} {seconds}")
        if stage == DOWNLOADING and not self.layer.retry_in:
            yield from self._counting(DOWNLOADING, "Downloading", self.layer.current)
        for passed in (VERIFYING, DOWNLOADED):
            if self._told < passed <= stage:
                self._told = passed
                yield self._line(_WORDS[passed])
        if stage == EXTRACTING:
            yield from self._counting(EXTRACTING, "Extracting", self.layer.extracted)
        if self._told < DONE <= stage:
            self._told = DONE
            yield self._line(_WORDS[DONE])

    def _counting(self, stage: int, word: str, current: int) -> Iterator[Line]:
        if (stage, current) == self._counted or not current:
            return
        self._told = max(self._told, stage)
        self._counted = (stage, current)
        yield counting(self._id, word, current, self.layer.descriptor.size)

    def _line(self, status: str) -> Line:
        return {"status": status, "progressDetail": {}, "id": self._id}


def counting(identity: str, word: str, current: int, total: int) -> Line:
    return {
        "status": word,
        "progressDetail": {"current": current, "total": total},
        "progress": bar(current, total),
        "id": identity,
    }


def bar(current: int, total: int) -> str:
    """What docker's old clients show: a bar of fifty and both sizes."""
    done = min(current * _BAR // total if total else 0, _BAR)
    return f"[{'=' * done}>{' ' * (_BAR - done)}] {size(current):>8}/{size(total)}"


def size(count: float) -> str:
    """As go-units says it: `12.3MB`, powers of a thousand, four digits."""
    unit = 0
    while count >= 1000 and unit + 1 < len(_UNITS):
        count /= 1000
        unit += 1
    return f"{count:.4g}{_UNITS[unit]}"
