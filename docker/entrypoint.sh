#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command with ROS and this package: `docker exec CONTAINER /entrypoint.sh mobilevlm checks`.
set -e
source /opt/mobilevlm/install/setup.bash
exec "$@"
