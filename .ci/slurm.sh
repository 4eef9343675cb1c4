#!/usr/bin/env bash
# Installs SLURM for tests/workflow/test_slurm.py where packages may be installed; says why not elsewhere.
set -uo pipefail
if command -v slurmctld >/dev/null && command -v munged >/dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "No SLURM: packages cannot be installed here (needs root and apt-get); its tests will be skipped."
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } >/dev/null 2>&1; then
    echo "No SLURM: apt-get could not install slurm-wlm and munge; its tests will be skipped."
fi
exit 0
