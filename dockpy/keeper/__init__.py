"""The first process of a user: holds the namespaces and the listening socket, forks daemon and
shims.

Single-threaded for life, has imported shim and runtime and no third-party package, so that a forked
shim is ready within a millisecond and shares its memory. It knows no container: what it is told, it
forks.

The shim's code is loaded before everything else, and loads little itself: so its objects lie side by side. A
page that a shim writes to (and counting references is writing) is one that it owns, until it is at rest and
most of these pages are as in every shim at rest (recording, linux.samepage).
"""

import dockpy.shim.main  # noqa: F401
