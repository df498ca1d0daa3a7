"""Images: their names, where they come from (registries, archives, root file systems, this host) and
what is told of them.

Blocking, but for what speaks to registries (pull, push, distribution and what they stand on). Knows
`storage` (blobs and snapshots) and the OCI values; never containers: who uses an
image is asked through a function that the caller hands in. The image layout's `index.json` is the
only truth: an image is there when an entry of it names its manifest, and everything in the store
that no entry leads to is garbage, which `ImageStore.collect` removes. So a change is: put blobs,
unpack layers, then write the index in one step; a removal is the same backwards, and a cut in
between leaves only garbage.

Layers are unpacked when an image arrives, not at its first use: the bytes are in the page cache
then, a bad layer is told to the one who loads it and not to whoever runs it, the diff ids are
checked in the same pass, and the first `run` is as fast as the next.
"""
