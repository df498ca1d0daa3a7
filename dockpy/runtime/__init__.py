"""An OCI runtime as two calls: `create.create` and `exec.exec_process`. Stdlib, linux and oci only.

The caller (a shim) is single-threaded, already inside the user's namespaces, and becomes the
parent of what it starts; its death kills it (PR_SET_PDEATHSIG). Needs nothing of the host but its
kernel and its /proc.

  create     decides everything, clones, listens        errors   docker's sentences and exit codes
  exec       the same for a running container           init     the child: one straight line each
  line       how a line begins, and says what failed     confine  the end of both lines: to execve
  rootfs     root, devices, pivot                        mounts   one mount of the specification
  namespaces which are new, which are joined             users    "name|uid[:group]" in the image's files
  groups     into the control group that there is
  console    a pty of the container's own devpts         bpf      seccomp compiled    pid1  our own init

Three situations, one code: root of the host (device nodes are made in a tmpfs of ours and bound
singly, all other mounts are nodev, because there is no device controller); uid 0 of a user
namespace with a range of ids (devices are the host's, bound); uid 0 of one with a single id
(annotation io.dockpy.tier=single: another user N runs in a nested user namespace with the map `N
0 1` and no capabilities).

Not acted on, though the specification knows it: hooks, cgroup resources (linux.cgroupsPath names a
group that is there, with its limits), AppArmor and SELinux
labels, time namespaces, scheduler and I/O priorities, idmapped mounts.
"""
