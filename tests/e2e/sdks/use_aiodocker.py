"""aiodocker in ordinary use: `use_aiodocker.py IMAGE FOLDER REGISTRY`, the engine by DOCKER_HOST."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import tarfile
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any

import aiodocker
from aiohttp.http import WSMsgType

BINARY = WSMsgType.BINARY


class Use:
    """One client, and what the steps need. Every step leaves nothing behind."""

    def __init__(self, client: Any, image: str, registry: str) -> None:
        self.client, self.image, self.registry = client, image, registry

    @contextlib.asynccontextmanager
    async def running(self, *command: str, **config: Any) -> AsyncIterator[Any]:
        wanted = {"Image": self.image, "Cmd": list(command), **config}
        wanted["HostConfig"] = {"NetworkMode": "none", **config.get("HostConfig", {})}
        container = await self.client.containers.run(wanted)
        try:
            yield container
        finally:
            await container.delete(force=True, v=True)

    async def system(self) -> None:
        assert (await self.client.version())["Os"] == "linux"
        assert (await self.client.system.info())["OSType"] == "linux"

    async def images(self) -> None:
        images = self.client.images
        rows = await images.list()
        assert any(self.image in (row["RepoTags"] or []) for row in rows)
        assert (await images.inspect(self.image))["Os"] == "linux"
        assert await images.history(self.image)
        assert await images.tag(self.image, "sdk/aio", tag="v1")
        async with images.export_image("sdk/aio:v1") as answer:
            saved = await answer.read()
        assert await images.delete("sdk/aio:v1") == [{"Untagged": "sdk/aio:v1"}]
        with refused(404, "No such image: sdk/aio:v1"):
            await images.inspect("sdk/aio:v1")
        rows = await images.import_image(saved)
        assert any("Loaded image: sdk/aio:v1" in row.get("stream", "") for row in rows), rows
        await images.delete("sdk/aio:v1")

    async def life(self) -> None:
        containers = self.client.containers
        script = "echo out; sleep 0.1; echo err >&2; sleep 0.2; exit 3"
        async with self.running("sh", "-c", script) as one:
            followed = [line async for line in one.log(stdout=True, stderr=True, follow=True)]
            assert followed == ["out\n", "err\n"], followed
            assert (await one.wait())["StatusCode"] == 3
            assert await one.log(stderr=True) == ["err\n"]
            assert (await one.show())["State"]["ExitCode"] == 3
        with refused(404, f"No such container: {one.id}"):
            await one.show()
        async with self.running("sleep", "100", Labels={"sdk": "aio"}) as two:
            [listed] = await containers.list(filters=json.dumps({"label": ["sdk=aio"]}))
            assert listed.id == two.id
            await two.rename(f"aio-{two.id[:12]}")
            assert (await containers.get(f"aio-{two.id[:12]}")).id == two.id
            await two.pause()
            await two.unpause()
            [shot] = await two.stats(stream=False)
            assert shot["id"] == two.id
            async for shot in two.stats(stream=True):
                assert shot["id"] == two.id
                break
            with refused(409, "running"):
                await two.delete()
            await two.restart(timeout=0)
            await two.kill(signal="KILL")
            assert (await two.wait())["StatusCode"] == 137
            committed = await two.commit(repository="sdk/aio", tag="committed")
            assert committed["Id"].startswith("sha256:")
            await self.client.images.delete("sdk/aio:committed")

    async def exec(self) -> None:
        async with self.running("sleep", "100") as one:
            run = await one.exec(["sh", "-c", "echo $A; pwd; echo err >&2; exit 4"],
                                 environment={"A": "1"}, workdir="/tmp")  # fmt: skip
            async with run.start() as stream:
                said = await everything(stream)
            assert said == {1: b"1\n/tmp\n", 2: b"err\n"}, said
            assert (await run.inspect())["ExitCode"] == 4
            run = await one.exec(["sh", "-c", "read x; stty size; echo $x"], stdin=True, tty=True)
            async with run.start() as stream:
                await run.resize(h=30, w=90)
                await stream.write_in(b"hi\n")
                said = await everything(stream)
            assert b"30 90\r\nhi\r\n" in said[1], said
            run = await one.exec(["sleep", "50"])
            assert await run.start(detach=True) == b""
            assert (await run.inspect())["Running"] is True

    async def attach(self) -> None:
        wanted = {"Image": self.image, "Cmd": ["sh", "-c", "read x; echo $x; echo e >&2"],
                  "OpenStdin": True, "HostConfig": {"NetworkMode": "none"}}  # fmt: skip
        container = await self.client.containers.create(wanted)
        async with container.attach(stdin=True, stdout=True, stderr=True) as stream:
            await container.start()
            await stream.write_in(b"fed\n")
            said = await everything(stream)
        assert said == {1: b"fed\n", 2: b"e\n"}, said
        await container.wait()
        await container.start()
        line = await container.websocket(stdin=True, stdout=True, stderr=True, stream=True)
        await line.send_bytes(b"by ")
        await line.send_str("frames\n")
        text = b""
        while (message := await asyncio.wait_for(line.receive(), 20)).type == BINARY:
            text += message.data
        assert sorted(text.splitlines()) == [b"by frames", b"e"], (text, message)
        await line.close()
        await container.wait()
        await container.delete()

    async def files(self) -> None:
        async with self.running("sleep", "100") as one:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                member = tarfile.TarInfo("file")
                member.size = 5
                tar.addfile(member, io.BytesIO(b"12345"))
            await one.put_archive("/home", buffer.getvalue())
            tar = await one.get_archive("/home/file")
            assert tar.getnames() == ["file"]

    async def events(self) -> None:
        events = self.client.events
        listener = events.subscribe(filters=json.dumps({"label": ["sdk=aio-events"]}))
        await asyncio.sleep(0.3)
        async with self.running("true", Labels={"sdk": "aio-events"}) as container:
            await container.wait()
        actions = []
        while "destroy" not in actions:
            event = await asyncio.wait_for(listener.get(), 10)
            assert event["Actor"]["ID"] == container.id
            actions.append(event["Action"])
        assert actions == ["create", "start", "die", "destroy"], actions
        await events.stop()

    async def transfer(self) -> None:
        if not self.registry:
            return
        name = f"{self.registry}/sdk/aio"
        await self.client.images.tag(self.image, name, tag="v1")
        rows = await self.client.images.push(name, tag="v1")
        assert any("aux" in row for row in rows), rows
        await self.client.images.delete(f"{name}:v1")
        rows = [row async for row in self.client.images.pull(name, tag="v1", stream=True)]
        assert any(f"{name}:v1" in row.get("status", "") for row in rows), rows
        await self.client.images.delete(f"{name}:v1")


async def everything(stream: Any) -> dict[int, bytes]:
    said: dict[int, bytes] = {}
    while (message := await asyncio.wait_for(stream.read_out(), 20)) is not None:
        said[message.stream] = said.get(message.stream, b"") + message.data
    return said


@contextlib.contextmanager
def refused(status: int, words: str) -> Any:
    try:
        yield
    except aiodocker.DockerError as error:
        assert (error.status, words in error.message) == (status, True), error
    else:
        raise AssertionError(f"no error that says {words}")


async def main() -> bool:
    image, _, registry = sys.argv[1:4]
    took: dict[str, float] = {}
    failed = False
    async with aiodocker.Docker() as client:
        use = Use(client, image, registry)
        for step in "system images life exec attach files events transfer".split():
            started = time.monotonic()
            try:
                await asyncio.wait_for(getattr(use, step)(), 30)
            except Exception:  # every step is reported, in one run
                failed = True
                print(f"--- {step}", traceback.format_exc(), sep="\n", file=sys.stderr)
            took[step] = round(time.monotonic() - started, 2)
    print(json.dumps(took))
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
