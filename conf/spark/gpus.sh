#!/bin/sh
# Says which GPUs this machine has, in the form that Spark's resource scheduling wants of a discovery script:
# {"name": "gpu", "addresses": ["0", "1"]}. Ends with status 1 if it has none or they cannot be asked.
set -eu
if ! command -v nvidia-smi >/dev/null; then
  echo "gpus.sh: there is no nvidia-smi on the PATH; is NVIDIA's driver installed?" >&2
  exit 1
fi
if ! found=$(nvidia-smi --query-gpu=index --format=csv,noheader); then
  echo "gpus.sh: nvidia-smi failed: $found" >&2
  exit 1
fi
addresses=
for index in $found; do
  case $index in
    *[!0-9]*) echo "gpus.sh: nvidia-smi gave no list of numbers: $found" >&2; exit 1 ;;
  esac
  addresses="$addresses${addresses:+, }\"$index\""
done
if [ -z "$addresses" ]; then
  echo "gpus.sh: nvidia-smi lists no GPU" >&2
  exit 1
fi
echo "{\"name\": \"gpu\", \"addresses\": [$addresses]}"
