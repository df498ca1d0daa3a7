"""What this build does not have: empty lists where a client only looks, one sentence where it asks for more."""

from __future__ import annotations

from dockpy.api import query as q
from dockpy.daemon.exchange import Exchange
from dockpy.daemon.router import Handler
from dockpy.errors import Forbidden, NotFound, NotServed, Unavailable
from dockpy.supervisor.containers import Containers

# As `docker network ls` shows them; the ids only have to stay the same.
PREDEFINED = {"bridge": "b" * 64, "host": "a" * 64, "none": "c" * 64}
NETWORK_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))


class AbsentHandlers:
    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def table(self) -> dict[str, Handler]:
        return {
            "build": _refusal("building images is not served yet"),
            "build_prune": self.build_prune,
            "session": _refusal("BuildKit sessions are not served"),
            "plugins": _refusal("plugins are not served"),
            "plugin_list": self.plugin_list,
            "plugin_inspect": self.plugin_inspect,
            "swarm": self.swarm,
            "volume_list": self.volume_list,
            "volume_inspect": self.volume_inspect,
            "volume_remove": self.volume_inspect,
            "volume_create": _refusal(
                "volumes are not served yet; bind a folder of the host instead"
            ),
            "volume_prune": self.volume_prune,
            "network_list": self.network_list,
            "network_inspect": self.network_inspect,
            "network_remove": self.network_remove,
            "network_create": _refusal(
                "networks of your own are not served yet; there are bridge, host and none"
            ),
            "network_connect": _refusal("network connect is not served yet"),
            "network_disconnect": _refusal("network disconnect is not served yet"),
            "network_prune": self.network_prune,
        }

    async def swarm(self, exchange: Exchange) -> None:
        raise Unavailable(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
            "to connect this node to swarm and try again."
        )

    async def plugin_list(self, exchange: Exchange) -> None:
        await exchange.reply(200, [])

    async def plugin_inspect(self, exchange: Exchange) -> None:
        raise NotFound(f'plugin "{exchange.names["name"]}" not found')

    async def build_prune(self, exchange: Exchange) -> None:
        await exchange.reply(200, {"CachesDeleted": None, "SpaceReclaimed": 0})

    async def volume_list(self, exchange: Exchange) -> None:
        q.filters(exchange.query, ("dangling", "driver", "label", "name"))
        await exchange.reply(200, {"Volumes": [], "Warnings": None})

    async def volume_inspect(self, exchange: Exchange) -> None:
        raise NotFound(f"get {exchange.names['name']}: no such volume")

    async def volume_prune(self, exchange: Exchange) -> None:
        await exchange.reply(200, {"VolumesDeleted": None, "SpaceReclaimed": 0})

    async def network_list(self, exchange: Exchange) -> None:
        filters = q.filters(exchange.query, NETWORK_FILTERS)
        result = []
        for name, network_id in PREDEFINED.items():
            driver = "null" if name == "none" else name
            if "name" in filters and not any(value in name for value in filters["name"]):
                continue
            if "id" in filters and not any(network_id.startswith(value) for value in filters["id"]):
                continue
            if "driver" in filters and driver not in filters["driver"]:
                continue
            if "type" in filters and "builtin" not in filters["type"]:
                continue
            if "scope" in filters and "local" not in filters["scope"]:
                continue
            if "label" in filters or filters.get("dangling", ("false",))[0] in ("1", "true"):
                continue
            result.append(self._network(name))
        await exchange.reply(200, result)

    def _network(self, name: str, *, with_containers: bool = False) -> dict[str, object]:
        users = {}
        if with_containers:
            for container in self._containers.all():
                if container.state.running and container.record.host_config.network_mode == name:
                    users[container.id] = {
                        "Name": container.name,
                        "EndpointID": "",
                        "MacAddress": "",
                        "IPv4Address": "",
                        "IPv6Address": "",
                    }
        return {
            "Name": name,
            "Id": PREDEFINED[name],
            "Created": "1970-01-01T00:00:00Z",
            "Scope": "local",
            "Driver": "null" if name == "none" else name,
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": []},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": users,
            "Options": {},
            "Labels": {},
        }

    def _find(self, reference: str) -> str:
        for name, network_id in PREDEFINED.items():
            if reference == name or network_id.startswith(reference):
                return name
        raise NotFound(f"network {reference} not found")

    async def network_inspect(self, exchange: Exchange) -> None:
        name = self._find(exchange.names["id"])
        await exchange.reply(200, self._network(name, with_containers=True))

    async def network_remove(self, exchange: Exchange) -> None:
        name = self._find(exchange.names["id"])
        raise Forbidden(f"{name} is a pre-defined network and cannot be removed")

    async def network_prune(self, exchange: Exchange) -> None:
        await exchange.reply(200, {"NetworksDeleted": None})


def _refusal(sentence: str) -> Handler:
    async def refuse(exchange: Exchange) -> None:
        raise NotServed(sentence)

    return refuse
