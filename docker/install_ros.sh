#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# ROS 2 $ROS_DISTRO from apt into an Ubuntu image that has none, with rosdep and colcon, as the official ros images have it.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

# ROS's apt sources and their key: a release of ros-infrastructure/ros-apt-source, held to its checksum.
version=1.2.0
codename=$(. /etc/os-release && echo "$UBUNTU_CODENAME")
case $codename in
  jammy) sum=767884cf4ed03116b9d64438930a832ed854147ae435279a7924dfdf60f94433 ;;
  noble) sum=0804d9b13db770eb87019be414cd78378835228ad5fa801fc88758596dd8f7e5 ;;
  *)
    echo "no checksum of ros2-apt-source for Ubuntu '$codename'" >&2
    exit 1
    ;;
esac
apt-get update
apt-get install -y --no-install-recommends ca-certificates curl
package=/tmp/ros2-apt-source.deb
curl -fsSL -o $package \
  "https://github.com/ros-infrastructure/ros-apt-source/releases/download/$version/ros2-apt-source_$version.${codename}_all.deb"
echo "$sum  $package" | sha256sum --strict --check
apt-get install -y --no-install-recommends $package
rm $package

apt-get update
apt-get install -y --no-install-recommends build-essential "ros-$ROS_DISTRO-ros-base" python3-colcon-common-extensions python3-rosdep
rosdep init
rm -rf /var/lib/apt/lists/*
