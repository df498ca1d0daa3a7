"""Trio sockets for HTTP: bytes and descriptors, no meaning."""
