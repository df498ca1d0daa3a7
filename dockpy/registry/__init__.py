"""Registries: the distribution specification's client, and a server of our own (`dockpy registry serve`).

Async. Knows http, transport and the OCI values; never images or a store: bytes go out and come in as
streams. Nothing a registry says is trusted: digests and sizes are held against what was asked for, documents
are bounded, credentials go to the registry that they are for and to the token endpoint it names over TLS,
and to nobody else.

The server's straight line: `main` (the process) → transport.server (bytes, HTTP) → `server` (who may, what is
asked, the answer) → `repositories` (names) → a `BlobStore` (`blobs` is its contract, `directory` the one in a
folder). `routes`, `ranges`, `manifests` and `refusals` are pure; `server_uploads` is the part of the server that
takes several requests; `htpasswd` and `crypt` know who may.
"""
