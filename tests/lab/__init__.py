"""Whole machines: a Debian with systemd and cgroup v2 in QEMU, for what a container cannot show (login
sessions, delegation, a reboot, a power cut). Only in `./scripts/test --long`.
"""
