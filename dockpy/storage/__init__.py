"""Blobs, layers and snapshots: image data on disk, and the file systems that containers see.

Blocking; knows the kernel, the OCI values and the store's folders, never images' names or containers.
`content` keeps blobs by digest (an OCI image layout). `layer` unpacks a tar stream below a descriptor,
safely against whoever wrote it; `tree` and `diff` go the other way. `snapshot` is the contract that
`overlay`, `fuse` and `copy` fulfil: a committed tree by chain id, an active one by container, and the
mount that shows it. `owners` remembers who a file belongs to where the kernel cannot.

On disk, below `snapshots/` (names are short: they end up in a mount option of at most one page):
`n/7` trees by number (layers and active ones), `chains/<hex>` and `active/<key>` small JSON records that
name them, `tmp/` unpackings not done. A tree without a record, and everything in tmp/, is half done and
is removed by `recover()` at the daemon's start. Durability: a record of a chain is written after one
syncfs(2), so it never names a tree that a power cut could have emptied; active trees are not synced,
as running containers' files are not.
"""
