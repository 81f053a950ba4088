#!/bin/bash
# the arguments: "$1" and so on
. /app/activate.sh
exec "$@"
