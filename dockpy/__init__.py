"""Docker in one Python file: client, daemon, supervisor, shim and OCI runtime, rootless.

The folders are the chain a container goes through: client, daemon, supervisor, keeper, shim,
runtime. Nouns stand beside it: images, registry, storage, volumes, network, builder. The ground
floor is linux (the kernel as functions), oci (specs as values), http and api (protocols as values).
"""

__version__ = "0.1.0"
API_VERSION = "1.50"
MIN_API_VERSION = "1.40"
