#!/bin/sh
# dockpy: Docker in one Python file. This file is a shell script and, behind it, a Python archive.
# Until exec only built-ins of the shell are used: a process more would cost more than Python's own start.
# The interpreter is the one that unpacked this build last, else the newest in PATH. The record is believed when it is
# a file of ours in a folder of ours; who else could have written to them or above is asked by the Python code below.
case ${DOCKPY_STORE:-} in
  /*) _dockpy_app=$DOCKPY_STORE/app ;;
  *)
    if [ -O / ]; then
      _dockpy_app=/var/lib/dockpy/app
    else
      case ${XDG_DATA_HOME:-} in
        /*) _dockpy_app=$XDG_DATA_HOME/dockpy/app ;;
        *) _dockpy_app=${HOME:-/}/.local/share/dockpy/app ;;
      esac
    fi
    ;;
esac
_dockpy_py=
if [ -O "$_dockpy_app/python" ] && [ -O "$_dockpy_app" ] && [ ! -h "$_dockpy_app/python" ] && [ ! -h "$_dockpy_app" ]; then
  IFS= read -r _dockpy_py <"$_dockpy_app/python" || _dockpy_py=
fi
if [ ! -x "$_dockpy_py" ] || [ -d "$_dockpy_py" ]; then
  # A pyenv shim (*/shims/*) exists for versions that it then refuses, and takes 0.2 s: only when there is nothing else.
  _dockpy_py= _dockpy_shim=
  set -f
  IFS=:
  for _dockpy_name in python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3; do
    for _dockpy_dir in ${PATH:-/usr/bin:/bin}; do
      case $_dockpy_dir in
        */shims | */shims/*) [ ! -x "$_dockpy_dir/$_dockpy_name" ] || _dockpy_shim=$_dockpy_dir/$_dockpy_name ;;
        /*) [ ! -x "$_dockpy_dir/$_dockpy_name" ] || [ -d "$_dockpy_dir/$_dockpy_name" ] || { _dockpy_py=$_dockpy_dir/$_dockpy_name; break 2; } ;;
      esac
    done
  done
  [ -n "$_dockpy_py" ] || [ ! -x /usr/libexec/platform-python ] || _dockpy_py=/usr/libexec/platform-python
  _dockpy_py=${_dockpy_py:-$_dockpy_shim}
  [ -n "$_dockpy_py" ] || { echo "dockpy: no python3 in PATH; dockpy needs CPython 3.9 or newer" >&2; exit 127; }
fi
# Python does not start with a folder as stdin. What cannot be read does as well: to `run -i` it is empty, as docker's
# client takes a folder, and `load` or `import -` fail on it.
[ ! -d /proc/self/fd/0 ] || exec 0>/dev/null
# build/start.py is compiled already where this build was unpacked, for this Python, in a file of ours that nobody else
# can write; its hash tells it from what a power cut leaves. Else it stands behind this.
exec "$_dockpy_py" -IS -c 'import posix as p,sys
a=sys.argv
try:
 from _frozen_importlib_external import MAGIC_NUMBER as m
 from _imp import source_hash as h
 from marshal import loads as l
 f=p.open(a[2]+"/@BUILD@."+sys.implementation.cache_tag+"/start",0);s=p.fstat(f);b=p.pread(f,65536,0);p.close(f)
 c=l(b[12:])if b[:12]==m+h(1,b[12:])and s.st_uid==p.geteuid()and not s.st_mode&18 else 0
except Exception:c=0
if not c:f=p.open(a[1],0);c=p.pread(f,@SSIZ@,@SOFF@);p.close(f)
exec(c)' "$0" "$_dockpy_app" "$@"
