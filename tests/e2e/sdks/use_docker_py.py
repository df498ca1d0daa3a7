"""docker-py in ordinary use: `use_docker_py.py IMAGE FOLDER REGISTRY`, the engine by DOCKER_HOST."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import tarfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import docker
from docker import errors
from docker.types import Healthcheck, LogConfig, Mount, Ulimit
from docker.utils.socket import frames_iter


class Use:
    """One client, and what the steps need. Every step leaves nothing behind."""

    def __init__(self, image: str, folder: str, registry: str) -> None:
        self.client = docker.from_env(timeout=60)
        self.image, self.folder, self.registry = image, folder, registry

    @contextmanager
    def running(self, command: Any = "sleep 100", **options: Any) -> Iterator[Any]:
        container = self.client.containers.run(
            self.image, command, detach=True, network_mode="none", **options
        )
        try:
            yield container
        finally:
            container.remove(force=True, v=True)

    def once(self, *command: str, **options: Any) -> Any:
        return self.client.containers.run(
            self.image, list(command), remove=True, network_mode="none", **options
        )

    def system(self) -> None:
        assert self.client.ping() is True
        version = self.client.version()
        assert version["Os"] == "linux" and version["ApiVersion"]
        info = self.client.info()
        assert info["OSType"] == "linux" and info["Images"] >= 1
        usage = self.client.df()
        assert {"Images", "Containers", "Volumes"} <= set(usage)

    def images(self) -> None:
        image = self.client.images.get(self.image)
        assert self.image in image.tags and image.short_id.startswith("sha256:")
        assert image.id in [one.id for one in self.client.images.list()]
        name = self.image.rpartition(":")[0]
        assert [one.id for one in self.client.images.list(name=name)] == [image.id]
        assert image.tag("sdk/py", "v1") is True
        assert self.client.images.list(filters={"reference": "sdk/*"})[0].id == image.id
        assert image.history()[0]["Id"] in (image.id, "<missing>")
        saved = b"".join(self.client.images.get("sdk/py:v1").save(named="sdk/py:v1"))
        self.client.images.remove("sdk/py:v1")
        try:
            self.client.images.get("sdk/py:v1")
            raise AssertionError("removed and still there")
        except errors.ImageNotFound as error:
            assert "No such image: sdk/py:v1" in error.explanation
        [loaded] = self.client.images.load(saved)
        assert loaded.id == image.id and "sdk/py:v1" in loaded.tags
        self.client.images.remove("sdk/py:v1", noprune=True)
        pruned = self.client.images.prune(filters={"dangling": True})
        assert pruned["SpaceReclaimed"] >= 0

    def run(self) -> None:
        lines = self.once("sh", "-c", "echo 1; echo 2", stream=True)
        assert b"".join(lines) == b"1\n2\n"
        said = self.once(
            "sh", "-c", "echo $A $B; pwd; id -u; hostname; ulimit -n; df | grep -c /sdk; echo err >&2; id > /mnt/in",
            environment={"A": "1", "B": "x y"}, working_dir="/home/app", user="0", hostname="boat",
            ulimits=[Ulimit(name="nofile", soft=77, hard=99)], tmpfs={"/sdk": "size=3m"}, mem_limit="64m",
            volumes={self.folder: {"bind": "/mnt", "mode": "rw"}},
        )  # fmt: skip
        assert said == b"1 x y\n/home/app\n0\nboat\n77\n1\n", said
        with open(f"{self.folder}/in", "rb") as file:
            inside = file.read()
        mount = Mount("/mnt", self.folder, type="bind", read_only=True)
        said = self.once(
            "sh", "-c", "cat /mnt/in >&2; id -u", mounts=[mount], user="1000", stderr=True, stdout=False
        )  # fmt: skip
        assert said == inside, said
        with self.running(
            labels={"a": "b"}, init=True, read_only=True, cap_drop=["ALL"], shm_size="1m",
            stop_signal="SIGKILL", log_config=LogConfig(type="json-file", config={"max-size": "1m"}),
            healthcheck=Healthcheck(test=["CMD", "true"], interval=200_000_000),
        ) as container:  # fmt: skip
            assert container.labels == {"a": "b"} and container.status in ("created", "running")
            listed = self.client.containers.list(filters={"label": "a=b"})
            assert [one.id for one in listed] == [container.id]
            config = container.attrs["HostConfig"]
            assert config["ReadonlyRootfs"] is True and config["ShmSize"] == 1048576
            until(lambda: container.reload() or container.health == "healthy")

    def failures(self) -> None:
        try:
            self.once("sh", "-c", "echo sorry >&2; exit 3")
            raise AssertionError("exit code 3 was no error")
        except errors.ContainerError as failed:
            assert (failed.exit_status, failed.stderr) == (3, b"sorry\n")
        # By two steps: run() would leave it, and tell nobody its name.
        made = self.client.containers.create(self.image, "no-such-program", network_mode="none")
        refused: tuple[tuple[Callable[[], Any], Any, str], ...] = (
            (lambda: self.client.containers.get("no-such"), errors.NotFound, "No such container: no-such"),
            (lambda: self.client.images.get("no-such:v1"), errors.ImageNotFound, "No such image"),
            (lambda: self.client.volumes.get("no-such"), errors.NotFound, "no-such"),
            (made.start, errors.APIError, "no-such-program"),
            (lambda: self.client.containers.create(self.image, name="a b"), errors.APIError, "a b"),
        )  # fmt: skip
        for call, kind, words in refused:
            try:
                call()
                raise AssertionError(f"no error that says {words}")
            except kind as error:
                assert words in str(error.explanation), error.explanation
        made.remove()
        with self.running() as container:
            try:
                self.client.containers.create(self.image, name=container.name)
                raise AssertionError("one name for two")
            except errors.APIError as error:
                assert error.status_code == 409 and "is already in use" in error.explanation
            try:
                container.remove()
                raise AssertionError("a running container was removed")
            except errors.APIError as error:
                assert error.status_code == 409

    def logs(self) -> None:
        script = "echo one; sleep 0.1; echo two >&2; sleep 0.3; echo three"
        with self.running(["sh", "-c", script]) as container:
            stream = container.logs(stream=True, follow=True)
            assert b"".join(stream) == b"one\ntwo\nthree\n"
            assert container.wait()["StatusCode"] == 0
            assert container.logs(stdout=True, stderr=False) == b"one\nthree\n"
            assert container.logs(stdout=False, stderr=True) == b"two\n"
            assert container.logs(tail=1) == b"three\n"
            stamped = container.logs(timestamps=True, tail=1)
            stamp, _, rest = stamped.partition(b" ")
            assert rest == b"three\n" and stamp.endswith(b"Z")
            assert container.logs(since=int(time.time()) + 100) == b""
            assert container.logs(until=int(time.time()) - 100) == b""
        with self.running("echo x", tty=True) as container:
            container.wait()
            assert container.logs() == b"x\r\n"

    def exec(self) -> None:
        with self.running() as container:
            result = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
            assert (result.exit_code, result.output) == (4, (b"out\n", b"err\n"))
            done = container.exec_run("sh -c 'echo $A; pwd; id -u'", environment={"A": "1"}, workdir="/tmp", user="app")  # fmt: skip
            assert (done.exit_code, done.output) == (0, b"1\n/tmp\n1000\n")
            assert container.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")
            stream = container.exec_run(["sh", "-c", "echo 1; sleep 0.1; echo 2"], stream=True)
            assert stream.exit_code is None and b"".join(stream.output) == b"1\n2\n"
            both = container.exec_run(["sh", "-c", "echo 1; echo 2 >&2"], stream=True, demux=True)
            parts = list(both.output)
            assert b"".join(out or b"" for out, _ in parts) == b"1\n"
            assert b"".join(err or b"" for _, err in parts) == b"2\n"
            line = container.exec_run("cat", stdin=True, socket=True).output
            line._sock.sendall(b"fed")
            line._sock.shutdown(socket.SHUT_WR)
            assert b"".join(frames(line)) == b"fed"
            line.close()
            assert container.exec_run("sleep 30", detach=True).exit_code is None
            api = self.client.api
            made = api.exec_create(container.id, ["sh", "-c", "read x; stty size"], tty=True, stdin=True)  # fmt: skip
            line = api.exec_start(made["Id"], tty=True, socket=True)
            api.exec_resize(made["Id"], height=33, width=77)
            line._sock.sendall(b"\n")
            text = b"".join(iter(lambda: line._sock.recv(4096), b""))
            assert b"33 77" in text, text
            line.close()
            inspected = api.exec_inspect(made["Id"])
            assert (inspected["ExitCode"], inspected["Running"]) == (0, False)
            assert container.exec_run("no-such").exit_code in (126, 127)

    def attach(self) -> None:
        container = self.client.containers.create(
            self.image, "cat", stdin_open=True, network_mode="none"
        )
        options = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        line = container.attach_socket(params=options)
        container.start()
        line._sock.sendall(b"a" * 100_000)
        line._sock.shutdown(socket.SHUT_WR)
        assert b"".join(frames(line)) == b"a" * 100_000
        line.close()
        assert container.wait()["StatusCode"] == 0
        container.remove()
        with self.running(["sh", "-c", "sleep 0.5; echo x; echo y >&2"]) as other:
            parts = list(other.attach(stream=True, demux=True))
            assert sorted(parts, key=str) == sorted([(b"x\n", None), (None, b"y\n")], key=str)
        with self.running(
            ["sh", "-c", "read x; stty size; echo $x"], tty=True, stdin_open=True
        ) as term:
            line = term.attach_socket(params=options)
            term.resize(height=20, width=50)
            line._sock.sendall(b"hi\n")
            text = b"".join(iter(lambda: line._sock.recv(4096), b""))
            assert b"20 50\r\nhi\r\n" in text, text
            line.close()

    def files(self) -> None:
        with self.running() as container:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                member = tarfile.TarInfo("in/file")
                member.size, member.mode, member.uid = 5, 0o640, 1000
                tar.addfile(member, io.BytesIO(b"12345"))
            assert container.put_archive("/home", buffer.getvalue()) is True
            shown = container.exec_run("stat -c '%a %u %s' /home/in/file").output
            # An engine with a single id has no other to give it to.
            assert shown in (b"640 1000 5\n", b"640 0 5\n"), shown
            stream, stat = container.get_archive("/home/in")
            assert stat["name"] == "in" and stat["size"] >= 0
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
                assert tar.getnames() == ["in", "in/file"]
                assert tar.extractfile("in/file").read() == b"12345"  # type: ignore[union-attr] # it is a file
            try:
                container.get_archive("/no/such")
                raise AssertionError("no such file was found")
            except errors.NotFound as error:
                assert "Could not find the file /no/such" in error.explanation
            changes = {change["Path"]: change["Kind"] for change in container.diff()}
            assert changes["/home"] == 0 and changes["/home/in/file"] == 1
            with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
                assert "home/in/file" in tar.getnames()
            image = container.commit("sdk/committed", "v1", author="me", changes="ENV C=1")
            try:
                assert "sdk/committed:v1" in image.tags and image.attrs["Author"] == "me"
                text = self.client.containers.run(
                    image.id, ["sh", "-c", "cat /home/in/file; echo $C"], remove=True, network_mode="none",
                )  # fmt: skip
                assert text == b"123451\n"
            finally:
                self.client.images.remove("sdk/committed:v1", force=True)

    def life(self) -> None:
        with self.running(["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"]) as one:
            shot = one.stats(stream=False)
            assert shot["id"] == one.id and shot["cpu_stats"] is not None
            rows = one.stats(stream=True, decode=True)
            assert next(rows)["id"] == one.id
            rows.close()
            top = one.top(ps_args="-o pid,comm")
            assert top["Titles"] == ["PID", "COMMAND"] and top["Processes"]
            one.pause()
            one.reload()
            assert one.status == "paused"
            one.unpause()
            one.rename(one.name + "-new")
            one.reload()
            assert one.name.endswith("-new")
            warned = one.update(restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
            assert set(warned) == {"Warnings"}
            one.update(restart_policy={"Name": "no"})
            one.restart(timeout=2)
            one.reload()
            assert one.status == "running"
            codes: list[Any] = []
            waiting = threading.Thread(target=lambda: codes.append(one.wait(condition="next-exit")))
            waiting.start()
            time.sleep(0.1)
            one.stop(timeout=5)
            waiting.join(20)
            assert codes and codes[0]["StatusCode"] == 5, codes
            one.start()
            one.kill("SIGKILL")
            assert one.wait(condition="not-running")["StatusCode"] == 137
            try:
                one.kill()
                raise AssertionError("what is not running was killed")
            except errors.APIError as error:
                assert "is not running" in error.explanation
        gone = self.client.containers.create(self.image, "true", auto_remove=True)
        waiting = threading.Thread(target=lambda: codes.append(gone.wait(condition="removed")))
        waiting.start()
        time.sleep(0.1)
        gone.start()
        waiting.join(20)
        assert codes[1]["StatusCode"] == 0
        try:
            gone.reload()
            raise AssertionError("a removed container is still there")
        except errors.NotFound:
            pass

    def events(self) -> None:
        stream = self.client.events(
            decode=True, filters={"type": "container", "label": "sdk=events"}
        )
        seen: list[Any] = []

        def read() -> None:
            for event in stream:
                seen.append(event)
                if event["Action"] == "destroy":
                    stream.close()
                    return

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        since = int(time.time()) - 1
        time.sleep(0.2)
        with self.running("true", labels={"sdk": "events"}) as container:
            container.wait()
        reader.join(20)
        actions = [event["Action"] for event in seen]
        assert actions == ["create", "start", "die", "destroy"], actions
        assert seen[2]["Actor"]["Attributes"]["exitCode"] == "0"
        past = self.client.events(
            since=since,
            until=int(time.time()) + 1,
            decode=True,
            filters={"container": container.id},
        )
        assert {"create", "die"} <= {event["Action"] for event in past}
        past.close()

    def prune(self) -> None:
        made = self.client.containers.create(self.image, "true", labels={"sdk": "prune"})
        pruned = self.client.containers.prune(filters={"label": "sdk=prune"})
        assert pruned["ContainersDeleted"] == [made.id] and pruned["SpaceReclaimed"] >= 0
        assert self.client.containers.list(all=True, filters={"label": "sdk=prune"}) == []

    def transfer(self) -> None:
        if not self.registry:
            return
        name = f"{self.registry}/sdk/py"
        self.client.images.get(self.image).tag(name, "v1")
        rows = list(self.client.images.push(name, "v1", stream=True, decode=True))
        assert any("aux" in row for row in rows) and not any("error" in row for row in rows), rows
        self.client.images.remove(f"{name}:v1")
        assert self.client.images.get_registry_data(f"{name}:v1").id.startswith("sha256:")
        image = self.client.images.pull(name, "v1")
        assert f"{name}:v1" in image.tags and image.attrs["RepoDigests"]
        self.client.images.remove(f"{name}:v1")
        rows = list(self.client.api.pull(name, "v1", stream=True, decode=True))
        assert any(f"{name}:v1" in row.get("status", "") for row in rows), rows
        self.client.images.remove(f"{name}:v1")
        try:
            self.client.images.pull(name, "no-such")
            raise AssertionError("what is not there was pulled")
        except errors.NotFound as error:
            assert "not found" in error.explanation or "unknown" in error.explanation
        done = self.client.login("me", "secret", registry=f"http://{self.registry}", reauth=True)
        assert done["Status"] == "Login Succeeded", done


def frames(line: Any) -> Iterator[bytes]:
    """The bodies of an attached socket's frames."""
    for _, data in frames_iter(line, tty=False):
        yield data


def until(true: Any) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "waited ten seconds"
        time.sleep(0.05)


def main() -> None:
    use = Use(*sys.argv[1:4])
    steps = "system images run failures logs exec attach files life events prune transfer".split()
    took: dict[str, float] = {}
    failed = False
    for step in os.environ.get("STEPS", "").split() or steps:
        started = time.monotonic()
        try:
            getattr(use, step)()
        except Exception:  # every step is reported, in one run
            failed = True
            print(f"--- {step}", traceback.format_exc(), sep="\n", file=sys.stderr)
        took[step] = round(time.monotonic() - started, 2)
    use.client.close()
    print(json.dumps(took))
    sys.exit(failed)


if __name__ == "__main__":
    main()
