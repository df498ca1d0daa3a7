"""Trio sockets for HTTP, TLS, proxies: bytes and descriptors, no meaning."""
