"""Registries: the far ones that images come from, and our own (`dockpy registry serve`).

The server's straight line: `main` (the process) → transport.server (bytes, HTTP) → `server` (who may, what is
asked, the answer) → `repositories` (names) → a `BlobStore` (`blobs` is its contract, `directory` the one in a
folder). `routes`, `ranges`, `manifests` and `refusals` are pure; `uploads` is the part of the server that takes
several requests; `htpasswd` and `crypt` know who may.
"""
