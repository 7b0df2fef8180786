# What the scripts share. Sourced, not run.
#
#   packages NAME==VERSION ...   a new environment with exactly these, and what they need
#   python                       runs in it; the script is read from standard input

set -euo pipefail
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
cd "$FOLDER"

packages() {
    "${PYTHON:-python3}" -m venv env
    # One by one and in this order, so that the pinned torch is there before what asks for any.
    for package in "$@"; do
        env/bin/python -m pip install --quiet "$package" 2>/dev/null || { echo "cannot install $package"; exit 2; }
    done
}

python() {
    PYTHONWARNINGS=ignore env/bin/python - "$@"
}
