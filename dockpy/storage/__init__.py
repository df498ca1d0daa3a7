"""Blobs, layers and snapshots: image data on disk, and the file systems that containers see.

Blocking; knows the kernel, the OCI values and the store's folders, never images' names or
containers. `content` keeps blobs by digest (an OCI image layout). `tar` is the format as values,
`layer` unpacks a stream below a descriptor, safely against whoever wrote it; `view` merges trees,
`tree` and `diff` go the other way. `snapshot` is the contract that `overlay`, `fuse` and `copy`
fulfil, `choose` picks one; they share `committed` and active `trees`, their `places`, `records` and
`recovery`. `lender` is another store whose layers serve here, as they are or by `twin`s. `owners`
remembers who a file belongs to where the kernel cannot. All layers are kept in overlayfs's form,
whatever the driver.

On disk, below `snapshots/` (names are short: they end up in a mount option of at most one page):
  n/7            a layer's tree, or an active one: n/8/u what was written, n/8/w overlayfs's own
  o/7            what is remembered of tree 7 beside its xattrs
  m/7.<hash>     trees merged by hard links, the topmost of them 7 (overlay.py)
  chains/<hex>   record of a layer, JSON: its number, parent, size
  active/<key>   symbolic link to "<number>.<parent's number>"
  driver         the driver's name
  form           how these trees are made, for stores that would borrow them

Numbers are never given twice while the daemon lives. A tree without a record is half done and
removed by `recover()` at the daemon's start. Durability: one syncfs(2) a layer, then its record is
written and synced, so a record never names a tree that a power cut has emptied; without the record,
the layer is unpacked again from its blob. Active trees are not synced by us, as running containers'
files are not; their records are metadata alone, which a journal keeps in order.
"""
