"""The table of all commands: what `dockpy --help` lists and what each command line may hold. Data
only.

An entry is (module, least, most, usage, summary, flags): `least`/`most` count positional words
(most -1: any), a `-` before the usage means that flags end at the first positional word. The
functions are `commands.<module>.<name with _>`. A module "" is a docker command that this build
does not serve.
"""

from __future__ import annotations

_CREATE = """\
add-host list Add a host-to-IP mapping to /etc/hosts (host:ip)
annotation map Add an OCI annotation for the runtime (default map[])
attach/a list Attach to STDIN, STDOUT or STDERR
blkio-weight uint16 Relative block IO weight, 10 to 1000, or 0 for none (default 0)
blkio-weight-device list Relative block IO weight of one device (default [])
cap-add list Add Linux capabilities
cap-drop list Drop Linux capabilities
cgroup-parent string Parent cgroup of the container
cgroupns string Cgroup namespace to use (host|private)
cidfile string Write the container ID to the file
cpu-count int CPU count (Windows only)
cpu-percent int CPU percent (Windows only)
cpu-period int CFS (Completely Fair Scheduler) period
cpu-quota int CFS (Completely Fair Scheduler) quota
cpu-rt-period int Real-time CPU period in microseconds
cpu-rt-runtime int Real-time CPU runtime in microseconds
cpu-shares/c int CPU shares (relative weight)
cpus decimal Number of CPUs
cpuset-cpus string CPUs that may be used (0-3, 0,1)
cpuset-mems string Memory nodes that may be used (0-3, 0,1)
detach/d bool Run the container in the background and print its ID
detach-keys string Key sequence that detaches from the container
device list Add a host device to the container
device-cgroup-rule list Add a rule to the cgroup's list of allowed devices
device-read-bps list Limit the read rate (bytes per second) from a device (default [])
device-read-iops list Limit the read rate (IO per second) from a device (default [])
device-write-bps list Limit the write rate (bytes per second) to a device (default [])
device-write-iops list Limit the write rate (IO per second) to a device (default [])
disable-content-trust bool Skip image verification (default true)
dns list DNS servers of the container
dns-option list DNS options
dns-search list DNS search domains
domainname string NIS domain name of the container
entrypoint string Use this in place of the image's ENTRYPOINT
env/e list Set environment variables
env-file list Read environment variables from a file
expose list Expose a port or a range of ports
gpus gpu-request GPU devices for the container ('all' for all of them)
group-add list Add supplementary groups
health-cmd string Command that checks health
health-interval duration Time between two checks (ms|s|m|h) (default 0s)
health-retries int Failures in a row until unhealthy
health-start-interval duration Time between two checks during the start period (ms|s|m|h) (default 0s)
health-start-period duration Time to start up before failures count (ms|s|m|h) (default 0s)
health-timeout duration Longest time that one check may take (ms|s|m|h) (default 0s)
help bool Print usage
hostname/h string Host name of the container
init bool Run an init inside the container that forwards signals and reaps processes
interactive/i bool Keep STDIN open even if not attached
io-maxbandwidth bytes Maximum IO bandwidth of the system drive (Windows only)
io-maxiops uint Maximum IOps of the system drive (Windows only)
ip string IPv4 address (e.g., 172.30.100.104)
ip6 string IPv6 address (e.g., 2001:db8::33)
ipc string IPC mode to use
isolation string Container isolation technology
kernel-memory bytes Kernel memory limit
label/l list Set meta data on the container
label-file list Read labels from a file, one a line
lease bool End the container when this client ends, however it does (dockpy's own)
link list Add a link to another container
link-local-ip list IPv4/IPv6 link-local addresses
log-driver string Logging driver of the container
log-opt list Log driver options
mac-address string MAC address (e.g., 92:d0:c6:0a:29:33)
memory/m bytes Memory limit
memory-reservation bytes Memory soft limit
memory-swap bytes Limit of memory plus swap: '-1' for unlimited swap
memory-swappiness int Memory swappiness (0 to 100) (default -1)
mount mount Attach a filesystem mount to the container
name string Name of the container
network network Connect the container to a network
network-alias list Add an alias on the network
no-healthcheck bool Disable the image's HEALTHCHECK
oom-kill-disable bool Disable the OOM killer
oom-score-adj int The host's OOM preference (-1000 to 1000)
pid string PID namespace to use
pids-limit int Limit of processes (-1 for unlimited)
platform string Platform of the image, where it has several
privileged bool Give extended privileges to this container
publish/p list Publish ports of the container to the host
publish-all/P bool Publish all exposed ports to random ports
pull string Pull the image before running ("always", "missing", "never") (default "missing")
quiet/q bool Suppress the pull output
read-only bool Mount the container's root filesystem read only
restart string Restart policy for when the container exits (default "no")
rm bool Remove the container and its anonymous volumes when it exits
runtime string Runtime to use for this container
security-opt list Security options
shm-size bytes Size of /dev/shm
sig-proxy bool Proxy received signals to the process (default true)
stop-signal string Signal that stops the container
stop-timeout int Seconds to wait for a stop
storage-opt list Storage driver options of the container
sysctl map Sysctl options (default map[])
timeout duration Stop the container after so long; its exit code is 124 (dockpy's own) (default 0s)
tmpfs list Mount a tmpfs directory
tty/t bool Allocate a pseudo-TTY
ulimit ulimit Ulimit options (default [])
use-api-socket bool Bind mount the API socket and its credentials
user/u string User name or UID (format: <name|uid>[:<group|gid>])
userns string User namespace to use
uts string UTS namespace to use
volume/v list Bind mount a volume
volume-driver string Volume driver of the container
volumes-from list Mount the volumes of other containers
workdir/w string Working directory inside the container"""

_RUN_ONLY = ("detach/d ", "detach-keys ", "sig-proxy ")
_CREATE_FLAGS = "\n".join(line for line in _CREATE.split("\n") if not line.startswith(_RUN_ONLY))
_FORMAT = "format/f string Format output using a Go template, or 'json'"
_TABLE = "format string Format output using a Go template, 'table', 'table TEMPLATE' or 'json'"
_FILTER = "filter/f filter Filter output based on conditions provided"
_PRUNE_FILTER = 'filter filter Provide filter values (e.g. "until=<timestamp>")'
_FORCE = "force/f bool Do not prompt for confirmation"

COMMANDS = {
    "run": ("run", 1, -1, "-[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", _CREATE),
    "exec": (
        "exec", 2, -1, "-[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container",
        """\
detach/d bool Run the command in the background
detach-keys string Key sequence that detaches from the command
env/e list Set environment variables
env-file list Read environment variables from a file
interactive/i bool Keep STDIN open even if not attached
privileged bool Give extended privileges to the command
tty/t bool Allocate a pseudo-TTY
user/u string User name or UID (format: "<name|uid>[:<group|gid>]")
workdir/w string Working directory inside the container""",
    ),
    "ps": (
        "ps", 0, 0, "[OPTIONS]", "List containers",
        f"""\
all/a bool Show all containers (default shows just running)
{_FILTER}
{_TABLE}
last/n int Show n last created containers (includes all states) (default -1)
latest/l bool Show the latest created container (includes all states)
no-trunc bool Don't truncate output
quiet/q bool Only display container IDs
size/s bool Display total file sizes""",
    ),
    "create": ("run", 1, -1, "-[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", _CREATE_FLAGS),
    "start": (
        "start", 1, -1, "[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers",
        """\
attach/a bool Attach STDOUT/STDERR and forward signals
checkpoint string Restore from this checkpoint
checkpoint-dir string Use a custom checkpoint storage directory
detach-keys string Key sequence that detaches from the container
interactive/i bool Attach the container's STDIN""",
    ),
    "attach": (
        "attach", 1, 1, "[OPTIONS] CONTAINER",
        "Attach local standard input, output, and error streams to a running container",
        """\
detach-keys string Key sequence that detaches from the container
no-stdin bool Do not attach STDIN
sig-proxy bool Proxy all received signals to the process (default true)""",
    ),
    "stats": (
        "stats", 0, -1, "[OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics",
        f"""\
all/a bool Show all containers (default shows just running)
{_TABLE}
no-stream bool Disable streaming stats and only pull the first result
no-trunc bool Do not truncate output""",
    ),
    "wait": (
        "lifecycle", 1, -1, "CONTAINER [CONTAINER...]",
        "Block until one or more containers stop, then print their exit codes", "",
    ),
    "stop": (
        "lifecycle", 1, -1, "[OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers",
        """\
signal/s string Signal to send to the container
timeout/t int Seconds to wait before killing the container
time int Seconds to wait before killing the container (older name of --timeout)""",
    ),
    "restart": (
        "lifecycle", 1, -1, "[OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers",
        """\
signal/s string Signal to send to the container
timeout/t int Seconds to wait before killing the container
time int Seconds to wait before killing the container (older name of --timeout)""",
    ),
    "kill": (
        "lifecycle", 1, -1, "[OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers",
        "signal/s string Signal to send to the container",
    ),
    "rm": (
        "lifecycle", 1, -1, "[OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers",
        """\
force/f bool Force the removal of a running container (uses SIGKILL)
link/l bool Remove the specified link
volumes/v bool Remove anonymous volumes associated with the container""",
    ),
    "update": (
        "update", 1, -1, "[OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers",
        """\
blkio-weight uint16 Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)
cpu-period int Limit CPU CFS (Completely Fair Scheduler) period
cpu-quota int Limit CPU CFS (Completely Fair Scheduler) quota
cpu-rt-period int Limit the CPU real-time period in microseconds
cpu-rt-runtime int Limit the CPU real-time runtime in microseconds
cpu-shares/c int CPU shares (relative weight)
cpus decimal Number of CPUs
cpuset-cpus string CPUs in which to allow execution (0-3, 0,1)
cpuset-mems string MEMs in which to allow execution (0-3, 0,1)
kernel-memory bytes Kernel memory limit (deprecated)
memory/m bytes Memory limit
memory-reservation bytes Memory soft limit
memory-swap bytes Swap limit equal to memory plus swap: -1 to enable unlimited swap
pids-limit int Tune container pids limit (set -1 for unlimited)
restart string Restart policy to apply when a container exits""",
    ),
    "rename": ("lifecycle", 2, 2, "CONTAINER NEW_NAME", "Rename a container", ""),
    "pause": ("lifecycle", 1, -1, "CONTAINER [CONTAINER...]", "Pause all processes within one or more containers", ""),
    "unpause": ("lifecycle", 1, -1, "CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers", ""),
    "port": (
        "lifecycle", 1, 2, "CONTAINER [PRIVATE_PORT[/PROTO]]",
        "List port mappings or a specific mapping for the container", "",
    ),
    "top": ("lifecycle", 1, -1, "-CONTAINER [ps OPTIONS]", "Display the running processes of a container", ""),
    "logs": (
        "logs", 1, 1, "[OPTIONS] CONTAINER", "Fetch the logs of a container",
        """\
details bool Show extra details provided to logs
follow/f bool Follow log output
since string Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
tail/n string Number of lines to show from the end of the logs (default "all")
timestamps/t bool Show timestamps
until string Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)""",
    ),
    "cp": (
        "cp", 2, 2, "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tdockpy cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy files/folders between a container and the local filesystem",
        """\
archive/a bool Archive mode (copy all uid/gid information)
follow-link/L bool Always follow symlinks in SRC_PATH
quiet/q bool Suppress progress output during copy (as where there is no terminal)""",
    ),
    "diff": ("commit", 1, 1, "CONTAINER", "Inspect changes to files or directories on a container's filesystem", ""),
    "export": (
        "commit", 1, 1, "[OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive",
        "output/o string Write to a file, instead of STDOUT",
    ),
    "commit": (
        "commit", 1, 2, "-[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes",
        """\
author/a string Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
change/c list Apply Dockerfile instruction to the created image
message/m string Commit message
pause/p bool Pause container during commit (default true)""",
    ),
    "inspect": (
        "inspect", 1, -1, "[OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on containers and images",
        f"""\
{_FORMAT}
size/s bool Display total file sizes if the type is container
type string Only inspect objects of the given type""",
    ),
    "container inspect": (
        "inspect", 1, -1, "[OPTIONS] CONTAINER [CONTAINER...]",
        "Display detailed information on one or more containers",
        f"{_FORMAT}\nsize/s bool Display total file sizes",
    ),
    "image inspect": (
        "inspect", 1, -1, "[OPTIONS] IMAGE [IMAGE...]", "Display detailed information on one or more images",
        f"{_FORMAT}\nplatform string Inspect a specific platform of the image",
    ),
    "events": (
        "events", 0, 0, "[OPTIONS]", "Get real time events from the server",
        """\
filter/f filter Filter output based on conditions provided
format string Format output using a Go template, or 'json'
since string Show all events created since timestamp
until string Stream events until this timestamp""",
    ),
    "container prune": (
        "prune", 0, 0, "[OPTIONS]", "Remove all stopped containers", f"{_PRUNE_FILTER}\n{_FORCE}",
    ),
    "image prune": (
        "prune", 0, 0, "[OPTIONS]", "Remove unused images",
        f"all/a bool Remove all unused images, not just dangling ones\n{_PRUNE_FILTER}\n{_FORCE}",
    ),
    "system prune": (
        "prune", 0, 0, "[OPTIONS]", "Remove unused data",
        f"""\
all/a bool Remove all unused images not just dangling ones
{_PRUNE_FILTER}
{_FORCE}
volumes bool Prune anonymous volumes""",
    ),
    "system df": (
        "df", 0, 0, "[OPTIONS]", "Show disk usage",
        f"{_TABLE}\nverbose/v bool Show detailed information on space usage",
    ),
    "info": ("system", 0, 0, "[OPTIONS]", "Display system-wide information", _FORMAT),
    "version": ("system", 0, 0, "[OPTIONS]", "Show the version of client and daemon", _FORMAT),
    "images": (
        "images", 0, 1, "[OPTIONS] [REPOSITORY[:TAG]]", "List images",
        f"""\
all/a bool Show all images (default hides intermediate images)
digests bool Show digests
{_FILTER}
{_TABLE}
no-trunc bool Don't truncate output
quiet/q bool Only show image IDs
tree bool List multi-platform images as a tree""",
    ),
    "history": (
        "images", 1, 1, "[OPTIONS] IMAGE", "Show the history of an image",
        f"""\
{_TABLE}
human/H bool Print sizes and dates in human readable format (default true)
no-trunc bool Don't truncate output
platform string Show the history of a specific platform
quiet/q bool Only show image IDs""",
    ),
    "rmi": (
        "images", 1, -1, "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images",
        """\
force/f bool Force removal of the image
no-prune bool Do not delete untagged parents
platform list Remove only the given platform""",
    ),
    "tag": ("images", 2, 2, "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", ""),
    "pull": (
        "images", 1, 1, "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry",
        """\
all-tags/a bool Download all tagged images in the repository
disable-content-trust bool Skip image verification (default true)
platform string Platform of the image, where it has several
quiet/q bool Suppress verbose output""",
    ),
    "push": (
        "push", 1, 1, "[OPTIONS] NAME[:TAG]", "Upload an image to a registry",
        """\
all-tags/a bool Push all tags of an image to the repository
disable-content-trust bool Skip image signing (default true)
platform string Push the image only where it is of this platform
quiet/q bool Suppress verbose output""",
    ),
    "login": (
        "login", 0, 1, "[OPTIONS] [SERVER]", "Authenticate to a registry",
        """\
password/p string Password or Personal Access Token (PAT)
password-stdin bool Take the Password or Personal Access Token (PAT) from stdin
username/u string Username""",
    ),
    "logout": ("login", 0, 1, "[SERVER]", "Log out from a registry", ""),
    "save": (
        "archive", 1, -1, "[OPTIONS] IMAGE [IMAGE...]",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        """\
output/o string Write to a file, instead of STDOUT
platform string Save only the given platform""",
    ),
    "load": (
        "archive", 0, 0, "[OPTIONS]", "Load an image from a tar archive or STDIN",
        """\
input/i string Read from a tar archive file, instead of STDIN
platform string Load only the given platform
quiet/q bool Suppress the load output""",
    ),
    "import": (
        "archive", 1, 2, "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        """\
change/c list Apply a Dockerfile instruction to the created image
message/m string Set the commit message of the imported image
platform string Set the platform of the image""",
    ),
    "image from-host": (
        "archive", 2, -1, "NAME PATH [PATH...]", "Make an image from programs of this host and the libraries they need", "",
    ),
    "image verify": (
        "verify", 1, 1, "[OPTIONS] IMAGE", "Verify a signature of an image, as cosign makes them, with a public key",
        "key string Public key of the signer (PEM), such as cosign.pub",
    ),
    "system reset": (
        "reset", 0, 0, "[OPTIONS]", "Remove all containers, the daemon and the whole store", _FORCE,
    ),
    "system limit": (
        "limit", 0, 1, "[SIZE|none]", "Show or set how much disk images may take; unused ones go first", "",
    ),
    "system check": (
        "check", 0, 0, "[OPTIONS]", "Verify records, blobs, layers and logs, and find leftovers",
        """\
content bool Compare all bytes of layers' files with their archives as well (slower)
format string Print a JSON line for each finding ("json")
repair bool Set damaged things aside, unpack layers again, remove leftovers""",
    ),
    "daemon start": (
        "daemon", 0, 0, "[OPTIONS]", "Start the daemon where none runs",
        "store list Use the images of another store, from there and read-only, too",
    ),
    "daemon stop": ("daemon", 0, 0, "", "Stop the daemon; containers go on", ""),
    "daemon enable": ("enable", 0, 0, "", "Start the daemon when the machine starts", ""),
    "daemon disable": ("enable", 0, 0, "", "Do not start the daemon when the machine starts", ""),
    "daemon status": ("daemon", 0, 0, "[OPTIONS]", "List the processes of dockpy", _FORMAT),
    "daemon logs": ("daemon", 0, 0, "", "Print the log of the daemon", ""),
    "registry serve": (
        "registry", 0, 0, "[OPTIONS]", "Serve a registry (OCI distribution 1.1) in the foreground",
        """\
htpasswd string Users who may use it, as 'htpasswd -B' writes them (bcrypt)
images bool Serve the images of this user's dockpy as well, for reading
insecure bool Serve beyond loopback without TLS and passwords
limit bytes Size of a cache (--proxy): what nobody has asked for longest goes first
listen string Address to listen on (HOST:PORT) (default "127.0.0.1:5000")
proxy string Be a pull-through cache of this registry (https://registry.example, or docker.io)
read-only bool Refuse pushes and deletions
store string Folder to keep everything in (default: "registry" in the store of dockpy)
tls-cert string Certificate (PEM, with its chain)
tls-key string Key of the certificate (PEM)""",
    ),
}  # fmt: skip

# docker's long forms and aliases: (group, verb) is another spelling of a command above
LONG = {
    "container": {
        **{
            verb: verb
            for verb in [
                "attach",
                "commit",
                "cp",
                "create",
                "diff",
                "exec",
                "export",
                "kill",
                "logs",
                "pause",
                "port",
                "rename",
                "restart",
                "rm",
                "run",
                "start",
                "stats",
                "stop",
                "top",
                "unpause",
                "update",
                "wait",
            ]
        },
        "inspect": "container inspect",
        "prune": "container prune",
        "ls": "ps",
        "list": "ps",
        "ps": "ps",
        "remove": "rm",
    },
    "image": {
        "from-host": "image from-host",
        "history": "history",
        "import": "import",
        "inspect": "image inspect",
        "prune": "image prune",
        "load": "load",
        "ls": "images",
        "list": "images",
        "pull": "pull",
        "push": "push",
        "rm": "rmi",
        "remove": "rmi",
        "save": "save",
        "tag": "tag",
        "verify": "image verify",
    },
    "system": {
        "check": "system check",
        "df": "system df",
        "events": "events",
        "info": "info",
        "limit": "system limit",
        "prune": "system prune",
        "reset": "system reset",
    },
    "daemon": {
        verb: f"daemon {verb}" for verb in ("start", "stop", "status", "logs", "enable", "disable")
    },
    "registry": {"serve": "registry serve"},
}

GROUPS = {
    "container": "Manage containers",
    "daemon": "Manage the daemon of this user",
    "image": "Manage images",
    "registry": "Serve a registry",
    "system": "Manage dockpy",
}

# docker commands and groups that are known, and answered with a refusal
NOT_SERVED = frozenset(
    [
        "bake",
        "build",
        "builder",
        "buildx",
        "checkpoint",
        "compose",
        "config",
        "context",
        "manifest",
        "network",
        "node",
        "plugin",
        "search",
        "secret",
        "service",
        "stack",
        "swarm",
        "trust",
        "volume",
    ]
)

GLOBAL = """\
config string Location of client config files (default "~/.docker")
context/c string Name of the context to use to connect to the daemon (only "default" is served)
debug/D bool Enable debug mode
help bool Print usage
host/H list Daemon socket to connect to (unix:// or tcp://), in place of the user's own daemon
log-level/l string Set the logging level ("debug", "info", "warn", "error", "fatal") (default "info")
tls bool Use TLS (not served: the daemon is a socket of yours)
tlscacert string Trust certs signed only by this CA
tlscert string Path to TLS certificate file
tlskey string Path to TLS key file
tlsverify bool Use TLS and verify the remote
version/v bool Print version information and quit"""
