#!/usr/bin/env bash
# The environment of FlashMD 0.3.0: `bash benchmarks/peers/environment.sh [FOLDER]`, out/peers/environment by default.
# This package is put into it without its dependencies, which are the peer's own or pinned here.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="${1:-out/peers/environment}"
python3 -m venv "$folder"
pip="$folder/bin/pip --disable-pip-version-check"
# torch first and pinned, so that nothing below brings another build; without a GPU, have pip find the one for processors
$pip install --quiet --constraint constraints.txt torch==2.13.0
$pip install --quiet --constraint constraints.txt \
    flashmd==0.3.0 metatrain==2026.3.1 metatomic-torch==0.1.19 metatensor-torch==0.10.8 omegaconf==2.4.0 torchdiffeq
$pip install --quiet --no-deps --editable .
"$folder/bin/python" -c "import flashmd, metatrain, actionlearn; print('FlashMD is ready in $folder')"
