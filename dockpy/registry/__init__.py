"""Registries: the distribution specification's client, and what it says when it refuses.

Async. Knows http, transport and the OCI values; never images or a store: bytes go out and come in as
streams. Nothing a registry says is trusted: digests and sizes are held against what was asked for, documents
are bounded, credentials go to the registry that they are for and to the token endpoint it names over TLS,
and to nobody else.
"""
