"""HTTP as values and state machines: no sockets, no files, no waiting.

`codec` is the daemon's side and the only user of h11; `plain` is the client's own small reader;
`stdcopy` frames the streams of attach, exec and logs.
"""
