#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install this working tree in every way a user may, for real, and ask a question from a second process each time:
# colcon build in a workspace that holds a clone alone, --symlink-install, node and messages as two packages, a second
# build on top of the first, and pip install into a bare environment. Uses ROS 2 and colcon from PyPI, below DIRECTORY.
#
#   tools/check_install.sh [DIRECTORY] [CASE...]      cases: plain again linked split pip laptop; default: all
#
# NODE=no leaves out the real node and camera (a service between two small processes is still tried).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(realpath -m "${1:-$root/build/check_install}")
[ $# -gt 0 ] && shift
cases=${*:-plain again linked split pip laptop}
distro=${ROS:-kilted}
unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
commands="camera_node mobilevlm mobilevlm_client mobilevlm_demo mobilevlm_node"
mkdir -p "$work"

say() { printf '\n== %s\n' "$*"; }
fail() {
  echo "check_install: error: $*" >&2
  exit 1
}

logged() { # NAME COMMAND...
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 </dev/null || {
    tail -n 30 "$work/$name.log"
    fail "$name failed; the whole output is in $work/$name.log"
  }
}

environment() { # NAME REQUIREMENT...: a virtual environment with them, kept between runs
  local venv=$work/$1
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  shift
  logged environment "$venv/bin/python" -m pip install "$@"
}

clone() { # DIRECTORY: what a clone of this working tree would hold
  rm -rf "$1"
  mkdir -p "$1"
  (cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$1" 2>/dev/null) || true
  [ -f "$1/setup.py" ] || fail "copying the working tree to $1 failed"
}

# Expects the environment to be set up; $1 is the folder where ROS looks for executables.
try_it() {
  local name
  for name in $commands; do
    [ -x "$1/$name" ] || fail "$1/$name does not exist or cannot run"
  done
  cd /
  # Whatever Python colcon runs with: an executable runs the one of the shell, which may have a virtual environment.
  case $1 in */ws_*) [ "$(head -n 1 "$1/mobilevlm")" = "#!/usr/bin/env python3" ] || fail "$1/mobilevlm names a Python: $(head -n 1 "$1/mobilevlm")" ;; esac
  python3 -c 'import mobilevlm_ros, mobilevlm_msgs.srv as m; print(mobilevlm_ros.__file__); print(m.__file__)'
  "$1/mobilevlm" --help >/dev/null
  ROS_DOMAIN_ID=$(python3 -c 'from mobilevlm_ros.ros.resources import free_domain as f; print(f())')
  export ROS_DOMAIN_ID
  python3 "$root/test/packaging/ask_image_peer.py" serve >"$work/peer.log" 2>&1 &
  local peer=$!
  [ "$(python3 "$root/test/packaging/ask_image_peer.py" ask "open?")" = "?nepo" ] && wait "$peer" ||
    fail "a service call between two processes failed: $(cat "$work/peer.log")"
  echo "AskImage works between two processes"
  [ "${NODE:-yes}" = yes ] || return 0
  "$1/camera_node" >"$work/camera.log" 2>&1 &
  local camera=$!
  "$1/mobilevlm_node" >"$work/node.log" 2>&1 &
  local node=$!
  # shellcheck disable=SC2064
  trap "kill $camera $node 2>/dev/null || true" EXIT
  local tries=0
  until "$1/mobilevlm_client" --timeout 30 "Is there a person?" >"$work/client.log" 2>&1; do # no frame yet, at first
    [ $((tries += 1)) -lt 15 ] || {
      tail -n 20 "$work/camera.log" "$work/node.log" "$work/client.log"
      fail "the client got no answer"
    }
    sleep 1
  done
  cat "$work/client.log"
  kill -INT "$camera" "$node"
  wait "$node" || fail "the node ended with status $? after Ctrl-C: $(tail -n 5 "$work/node.log")"
  wait "$camera" || fail "the camera ended with status $? after Ctrl-C: $(tail -n 5 "$work/camera.log")"
  trap - EXIT
}

workspace() ( # CASE ARGUMENT...: colcon build, then try it
  set -euo pipefail
  local ws=$work/ws_$1 case=$1
  shift
  PATH=$work/colcon/bin:$PATH
  [ "$case" = again ] && ws=$work/ws_plain && [ -f "$ws/install/setup.bash" ] || clone "$ws/src/mobilevlm_ros"
  cd "$ws"
  local before=$SECONDS
  # shellcheck disable=SC1091
  if [ "$case" = again ]; then set +u && source install/setup.bash && set -u; else rm -rf build install log; fi
  logged "colcon_$case" colcon build --event-handlers console_direct+ "$@"
  grep -E '^(Summary|mobilevlm_msgs is not built)' "$work/colcon_$case.log"
  echo "built in $((SECONDS - before)) s"
  # shellcheck disable=SC1091
  set +u && source install/setup.bash && set -u
  [ "$(command -v mobilevlm)" = "$ws/install/mobilevlm_ros/bin/mobilevlm" ] || fail "mobilevlm is not on the PATH"
  mobilevlm help ask >/dev/null
  try_it "$ws/install/mobilevlm_ros/lib/mobilevlm_ros"
)

pip_case() (
  set -euo pipefail
  rm -rf "$work/pip"
  environment pip -r "$root/requirements/ros-$distro.txt"
  clone "$work/src_pip"
  PATH=$work/pip/bin:$PATH
  cd "$work"
  logged pip_install pip install "$work/src_pip"
  for name in $commands; do [ -x "$work/pip/bin/$name" ] || fail "no console script $name"; done
  try_it "$work/pip/lib/mobilevlm_ros"
  logged pip_uninstall pip uninstall -y mobilevlm_ros
  cd / && ! python3 -c 'import mobilevlm_msgs.srv' 2>/dev/null || fail "pip uninstall left the messages behind"
)

laptop_case() (
  set -euo pipefail
  rm -rf "$work/laptop"
  environment laptop pip
  clone "$work/src_laptop"
  PATH=$work/laptop/bin:$PATH
  cd "$work"
  logged laptop_install pip install "$work/src_laptop"
  cd /
  python3 - "$work/photo.png" <<'PY'
import sys
import cv2, numpy as np
cv2.imwrite(sys.argv[1], np.full((240, 320, 3), 200, np.uint8))
PY
  mobilevlm ask "$work/photo.png" "Is there a person?"
  ! python3 -c 'import torch' 2>/dev/null || fail "torch was installed"
)

main() {
  case " $cases " in
    *" plain "* | *" again "* | *" linked "* | *" split "*)
      say "environment for colcon (ROS 2 $distro)"
      environment colcon -r "$root/requirements/ros-$distro.txt" colcon-common-extensions \
        numpy opencv-python-headless onnxruntime sentencepiece simplejpeg pillow pyyaml tqdm
      ;;
  esac
  for each in $cases; do
    say "$each"
    case $each in
      plain | again) workspace "$each" ;;
      linked) workspace linked --symlink-install ;;
      split)
        # The include fix is for ROS from PyPI; an apt ROS needs no --cmake-args.
        export AMENT_PREFIX_PATH=$work/colcon
        workspace split --base-paths src/mobilevlm_ros src/mobilevlm_ros/msg \
          --cmake-args "-DCMAKE_PROJECT_INCLUDE=$root/tools/ros_wheels.cmake"
        unset AMENT_PREFIX_PATH
        ;;
      pip) pip_case ;;
      laptop) laptop_case ;;
      *) fail "unknown case $each" ;;
    esac
  done
  say "all is well: $cases"
}

main && exit # on one line, read before it runs: a build takes long enough for this file to change
