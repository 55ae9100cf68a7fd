#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make a virtual environment with real ROS 2 (from PyPI), mobilevlm_msgs and this package.
#
#   tools/setup.sh run|test [kilted|jazzy] [DIRECTORY]
#
# `run` is all that the demo and the node need; `test` adds the tools of `make test`. Needs Python 3.10+, a C++ compiler
# and package registries. Each step is skipped while what it was made from has not changed, so a second run takes no time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

purpose=${1:?run or test}
distro=${2:-kilted}
venv=${3:-.venv}
steps=4
[ "$purpose" = test ] && steps=5
stamps=$venv/.stamps
log=$venv/log

fail() {
  printf '\nsetup: error: %s\n' "$*" >&2
  exit 1
}

digest() { # of the files named (folders: all files below), and of what else the step depends on
  { find "$@" -type f -print0 2>/dev/null | LC_ALL=C sort -z | xargs -0 sha256sum; echo "$python_version"; } | sha256sum | cut -c1-16
}

# step NUMBER NAME TEXT DIGEST HINT COMMAND...: run COMMAND once for this DIGEST, with its output in a log.
step() {
  local number=$1 name=$2 text="[$1/$steps] $3" digest=$4 hint=$5 start=$SECONDS ticker=""
  shift 5
  [ "$(cat "$stamps/$name" 2>/dev/null)" = "$digest" ] && return
  mkdir -p "$log"
  : >"$log/$name.log"
  if [ -t 1 ]; then # on a terminal: seconds, and ninja's count where there is one
    while sleep 1; do
      printf '\r%s ... %s s %s ' "$text" $((SECONDS - start)) "$(tail -n 1 "$log/$name.log" | grep -o '^\[[0-9/]*\]' || true)"
    done &
    ticker=$!
  else
    printf '%s ... ' "$text"
  fi
  local status=0
  "$@" >>"$log/$name.log" 2>&1 </dev/null || status=$?
  if [ -n "$ticker" ]; then
    kill "$ticker" && wait "$ticker" 2>/dev/null || true
    printf '\r\033[K%s ... ' "$text"
  fi
  if [ "$status" -ne 0 ]; then
    printf 'failed\n\n'
    tail -n 25 "$log/$name.log"
    fail "step $number failed; its whole output is in $log/$name.log. $hint"
  fi
  printf '%s s\n' $((SECONDS - start))
  echo "$digest" >"$stamps/$name"
}

choose_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10 python3.13}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python from 3.10 to 3.13 found${PYTHON:+ as PYTHON=$PYTHON}. Install one (sudo apt install python3 python3-venv python3-dev), or name it: PYTHON=/path/to/python3"
}

check_machine() {
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "ROS 2 comes as wheels for Linux x86-64 only, and this is $(uname -sm). With an apt ROS build with colcon; without ROS, \`pip install .\` gives \`mobilevlm ask\` (see README.md)."
  "$python" -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' ||
    fail "$python has no C headers (Python.h), which building the messages needs: sudo apt install $(basename "$(readlink -f "$python")")-dev"
  command -v c++ >/dev/null || command -v g++ >/dev/null || fail "no C++ compiler found, which building the messages needs: sudo apt install g++"
}

make_venv() {
  rm -rf "$venv"/{bin,lib,lib64,share,include,build} "$stamps"
  mkdir -p "$stamps"
  "$python" -m venv "$venv"
}

pip_install() { "$venv/bin/python" -m pip install --no-input --disable-pip-version-check "$@"; }

install_ros() {
  local tools=() major minor
  # The system's CMake from 3.21 on (see ros_wheels.cmake), else PyPI's; 4 refuses projects that ROS still has.
  read -r major minor < <(cmake --version 2>/dev/null | sed -n 's/^cmake version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p') || true
  [ "${major:-0}" -eq 3 ] && [ "$minor" -ge 21 ] || tools+=("cmake>=3.21,<4")
  command -v ninja >/dev/null || tools+=(ninja)
  pip_install -r "requirements/ros-$distro.txt" "${tools[@]}"
}

build_interfaces() {
  "$venv/bin/python" tools/build_interfaces.py --build-directory "$venv/build"
}

install_product() { pip_install -e '.[typed]'; }
install_test_tools() { pip_install -e '.[build,train,tensorboard,typed,server,eval,mcp,bt,bags,memory,fleet,docs,dev]' -r requirements/test.txt; }

[ -f "requirements/ros-$distro.txt" ] || fail "unknown ROS '$distro': kilted and jazzy come from PyPI"
mkdir -p "$stamps" "$log"
if command -v flock >/dev/null; then # two `make` at once take turns
  exec 9>"$venv/.lock"
  flock --nonblock 9 || { echo "waiting for another make that is setting up $venv" && flock 9; }
fi

if [ -x "$venv/bin/python" ] && [ -z "${PYTHON:-}" ]; then
  python_version=$(sed -n 's/^version *= *//p' "$venv/pyvenv.cfg")
else
  python=$(choose_python)
  python_version=$("$python" -c 'import platform; print(platform.python_version())')
fi
environment=$(echo "$python_version $PWD/$venv" | sha256sum | cut -c1-16)
if [ "$(cat "$stamps/venv" 2>/dev/null)" != "$environment" ]; then
  python=${python:-$(choose_python)}
  check_machine
fi

step 1 venv "Python $python_version environment in $venv" "$environment" \
  "On Debian and Ubuntu: sudo apt install python3-venv. A damaged environment: make clean." make_venv
step 2 ros "ROS 2 $distro from PyPI (about 300 MB)" "$(digest "requirements/ros-$distro.txt")" \
  "Is a package registry within reach (pip download ros-rclpy)?" install_ros
step 3 interfaces "messages and services (mobilevlm_msgs)" "$(digest msg tools/build_interfaces.py tools/ros_wheels.cmake "requirements/ros-$distro.txt")" \
  "If it says out of memory: CMAKE_BUILD_PARALLEL_LEVEL=1 make ..." build_interfaces
step 4 product "mobilevlm_ros with its serving dependencies (no torch)" "$(digest setup.py setup.cfg pyproject.toml package.xml launch config models/nano/bundle)" \
  "Is a package registry within reach?" install_product
# The tests of the web page drive the system's Chromium, and are skipped where there is none. CI installs it where it can.
browser() {
  command -v chromium || command -v chromium-browser || command -v google-chrome
}

if [ "$purpose" = test ]; then
  if ! browser >/dev/null && [ -n "${CI:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends chromium; } >"$log/chromium.log" 2>&1 || true
  fi
  browser >/dev/null || echo "no Chromium here, so the tests of the web page will be skipped (sudo apt install chromium)"
  step 5 test "development tools and torch" "$(digest setup.cfg requirements/test.txt)" \
    "Is a package registry within reach?" install_test_tools
fi
