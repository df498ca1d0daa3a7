"""The body of POST /containers/create, field by field as the docker client makes it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.client.recorder import CLIENT, Recorder

DOCKER = shutil.which("docker", path="/usr/local/bin:/usr/bin:/bin") or ""


def _docker_is_new() -> bool:
    if not DOCKER:
        return False
    told = subprocess.run([DOCKER, "--version"], capture_output=True, text=True, check=False).stdout
    return told.startswith("Docker version ") and int(told.split()[2].split(".")[0]) >= 27


needs_docker = pytest.mark.skipif(
    not _docker_is_new(), reason="no docker client of version 27 or newer"
)

CASES = [
    "img",
    "img sh -c 'echo $X'",
    "-i img",
    "-it img cmd",
    "-a stdin -a stdout img",
    "-e A=b -e HOME -e NOPE img",
    "-l x=y -l z -h host --domainname dom img",
    "-v /a:/b:ro -v vol:/d -v /anon -v ./rel:/r -v ../up:/u img",
    "--mount type=bind,src=/x,dst=/y,readonly --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770 img",
    "--mount type=volume,src=v,dst=/v,volume-nocopy,volume-label=a=b,volume-opt=o=p,volume-driver=d img",
    "--mount 'type=bind,source=/a,\"target=/b,c\",bind-propagation=rslave,bind-recursive=disabled' img",
    "--mount type=image,src=i,dst=/i,image-subpath=s img",
    "--tmpfs /tt:size=1m --tmpfs /uu img",
    "--device /dev/null --device /dev/zero:/dev/z:r --device /dev/full:rw --device nvidia.com/gpu=all img",
    "--ulimit nofile=1:2 --ulimit core=0 --ulimit nproc=-1 --ulimit cpu=+7 --ulimit locks=5 img",
    "--sysctl net.core.somaxconn=1 --sysctl kernel.shmmax=5 img",
    "--cap-add sys_admin --cap-drop ALL --cap-add CAP_CHOWN --cap-drop chown img",
    "--cap-add all --cap-add kill img",
    "--security-opt seccomp=unconfined --security-opt no-new-privileges --security-opt systempaths=unconfined img",
    "--security-opt apparmor=unconfined --security-opt label:disable img",
    "--network host --ipc host --pid host --uts host --userns host --cgroupns private img",
    "--network none --pid container:x img",
    "--network foo --network-alias a --network-alias b --ip 10.0.0.2 --mac-address 92:d0:c6:0a:29:33 img",
    "--network foo --network name=bar,alias=x,driver-opt=a=b img",
    "--restart on-failure:3 img",
    "--restart unless-stopped img",
    "--health-cmd 'x y' --health-interval 3s --health-retries 2 --health-timeout 1m30s --health-start-period 1.5s img",
    "--no-healthcheck img",
    "-p 80 -p 127.0.0.1:8080:80/udp -p 9000-9001:90-91 -p 7000-7005:7 --expose 99 --expose 5-6/udp -P img",
    "-p target=80,published=8080,protocol=tcp -p [::1]:1:2 img",
    "--init --shm-size 1g -m 10m --memory-swap -1 --memory-reservation 5.5m --cpus 1.5 -c 5 --pids-limit 5 img",
    "--init=false --stop-signal INT --stop-timeout 3 --rm --read-only img",
    "--stop-timeout 0 --entrypoint '' img",
    "--entrypoint foo -w /w -u 1:2 --group-add 5 --group-add audio img a",
    "--add-host a:1.2.3.4 --add-host b=::1 --add-host c=[::2] --add-host g:host-gateway img",
    "--dns 1.1.1.1 --dns-search x --dns-option y img",
    "--log-driver json-file --log-opt max-size=1m --oom-score-adj 5 --oom-kill-disable img",
    "--log-driver none --annotation q=w --runtime rr --storage-opt size=1 --cpuset-cpus 0 --cpuset-mems 1 img",
    "--cpu-period 5 --cpu-quota 6 --cpu-rt-period 7 --cpu-rt-runtime 8 --blkio-weight 10 --privileged img",
    "--gpus all --volumes-from c:ro --link a:b --memory-swappiness 5 img",
    "--device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:5 --blkio-weight-device /dev/sda:50 img",
    "--device-cgroup-rule 'c 1:3 r' --cgroup-parent p img",
    "--name n --platform linux/amd64 img",
    "-- img --flag",
    "img -x --rm",
]


def _pruned(value: object) -> object:
    """Without Go's zero values: the daemon reads their absence as them."""
    if isinstance(value, dict):
        kept = {key: _pruned(item) for key, item in value.items()}
        told = ("MaskedPaths", "ReadonlyPaths")  # here [] is not null
        return {
            key: item
            for key, item in kept.items()
            if item not in (None, "", 0, [], {}, False) or (key in told and item == [])
        }
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value


def _body(raw: bytes) -> dict[str, object]:
    body = json.loads(raw)
    host = body["HostConfig"]
    init, timeout = host.get("Init"), body.get("StopTimeout")
    if host.get("MemorySwappiness") == -1:
        del host["MemorySwappiness"]
    if host.get("RestartPolicy", {}).get("Name") == "no":
        del host["RestartPolicy"]
    if host.get("ConsoleSize") == [0, 0]:
        del host["ConsoleSize"]
    for words in (host.get("Binds"), body.get("Env")):
        if words:
            words.sort()  # docker's client walks a Go map
    endpoints = body.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    names = sorted(endpoints)
    pruned = _pruned(body)
    assert isinstance(pruned, dict)
    # Pointers in Go: given and false, or given and 0, is not the same as not given.
    return {
        **pruned,
        "+init": init,
        "+timeout": timeout,
        "+networks": names if len(names) > 1 else [],
    }


def _recorded(program: list[str], words: list[str], folder: Path) -> tuple[str, dict[str, object]]:
    with Recorder() as daemon:
        result = daemon.run(program, "create", *words, cwd=folder)
        assert result.returncode == 0, result.stderr
        (request,) = daemon.requests
        assert result.stdout == b"a" * 64 + b"\n"
    query = request.target.partition("create")[2].replace("%2F", "/")
    body = json.loads(request.body.replace(daemon.path.rpartition("/")[0].encode(), b"HOMEFOLDER"))
    return query, _body(json.dumps(body).encode())


@needs_docker
@pytest.mark.parametrize("line", CASES)
def test_the_body_is_dockers(line: str, tmp_path: Path) -> None:
    import shlex

    words = shlex.split(line)
    theirs = _recorded([DOCKER], words, tmp_path)
    ours = _recorded(CLIENT, words, tmp_path)
    assert ours == theirs


@needs_docker
def test_files_named_by_flags_are_read_as_docker_reads_them(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b'\xef\xbb\xbfA=1 \n# no\n\n  B=x=y\nHOME\nNOPE\nC="q"\r\n')
    (tmp_path / "labels").write_text("a=b\nc\n")
    (tmp_path / "seccomp").write_text('{ "defaultAction": "SCMP_ACT_ALLOW",\n "n": [1, 2.5] }')
    words = "--env-file env -e A=2 --label-file labels -l a=z --security-opt seccomp=seccomp img".split()
    assert _recorded(CLIENT, words, tmp_path) == _recorded([DOCKER], words, tmp_path)


REFUSED = [
    "--foo img",
    "-Z img",
    "--name",
    "-e",
    "-it=x img",
    "--memory=zz img",
    "--cpus=x img",
    "--stop-timeout=x img",
    "--pids-limit=99999999999999999999 img",
    "--blkio-weight=70000 img",
    "--health-interval=5 img",
    "--health-interval=5x img",
    "--ulimit x img",
    "--ulimit foo=1 img",
    "--ulimit nofile=5:2 img",
    "--ulimit nofile=-1:2 img",
    "--ulimit nofile=--5 img",
    "--ulimit nofile= img",
    "--ulimit as=1000000 img",
    "--mount x img",
    "--mount type=bind,src=a img",
    "--mount type=bind,tmpfs-size=1,dst=/a img",
    "--mount type=bind,dst=/a,foo=b img",
    "--mount type=bind,dst=/a,readonly=maybe img",
    "--add-host foo img",
    "--add-host foo:bar img",
    "--dns foo img",
    "--gpus x img",
    "-a foo img",
    "-e =a img",
    "-l =a img",
    "--sysctl a.b=1 img",
    "-p a:b:c:d img",
    "-p x img",
    "-p 1-2:3-5 img",
    "-p 99999 img",
    "--expose a:b img",
    "--pid foo img",
    "--uts foo img",
    "--userns foo img",
    "--cgroupns foo img",
    "--security-opt foo img",
    "--security-opt seccomp=/nope img",
    "--restart foo:x img",
    "--rm --restart always img",
    "--pull x img",
    "--env-file /nope img",
    "--device x:y img",
    "--memory-swappiness 500 img",
    "--network-alias a img",
    "--network a,b=c img",
    "--log-driver none --log-opt a=b img",
    "--health-retries=-1 img",
    "--no-healthcheck --health-cmd x img",
]


@needs_docker
@pytest.mark.parametrize("line", REFUSED)
def test_what_docker_refuses_is_refused_in_its_words(line: str) -> None:
    with Recorder() as daemon:
        theirs = daemon.run([DOCKER], "create", *line.split())
        ours = daemon.run(CLIENT, "create", *line.split())
    assert theirs.returncode == ours.returncode == 125
    assert ours.stderr.decode().replace("dockpy", "docker") == theirs.stderr.decode().replace(
        "dockpy", "docker"
    )


@pytest.mark.parametrize("flag", ["--gpus=all", "--link=a:b", "-p=80"])
def test_a_flag_that_is_not_served_is_refused_by_name(flag: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [*CLIENT, "run", flag, "img"],
        capture_output=True,
        text=True,
        check=False,
        env={"DOCKPY_STORE": str(tmp_path / "store"), "HOME": str(tmp_path)},
    )
    name = {"-p=80": "--publish"}.get(flag, flag.partition("=")[0])
    assert result.returncode == 125
    assert result.stderr.startswith(f"docker: {name} is not served by this build: ")
    assert not (tmp_path / "store").exists()


def test_the_words_of_the_command_line_come_after_those_of_files(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=file\nB=file\n")
    with Recorder() as daemon:
        daemon.run(CLIENT, *"create -e A=word --env-file env img".split(), cwd=tmp_path)
    assert json.loads(daemon.requests[0].body)["Env"] == ["A=file", "B=file", "A=word"]
