#!/usr/bin/env bash
# Install the package with what it runs with, at the versions and hashes of a lock, into a virtual environment.
#
#   deploy/install.sh UV ENVIRONMENT CUDA [TORCH_INDEX]
#
# CUDA is 13, 12, or cpu. For cpu, TORCH_INDEX is the address of an index with torch and torchvision built for CPUs,
# as pytorch.org names it; those two wheels are then not checked against a hash, all others are.
# To be run from the folder with pyproject.toml and the locks.
set -euo pipefail
uv=$1 environment=$2 cuda=$3 torch_index=${4:-}

case $cuda in
	13 | cpu) lock=requirements.lock ;;
	12) lock=requirements-cuda12.lock ;;
	*)
		echo "CUDA must be 13, 12 or cpu, not '$cuda'" >&2
		exit 2
		;;
esac

# Without what only developers need, which the locks have too: a lock here says which version of what is wanted, not
# what is wanted. Byte code halves the start of every worker.
install() {
	"$uv" pip install --quiet --python "$environment/bin/python" --compile-bytecode "$@"
}

if [[ $cuda == cpu ]]; then
	if [[ -z $torch_index ]]; then
		echo "CUDA=cpu needs TORCH_INDEX: the address of the index that pytorch.org gives for CPUs" >&2
		exit 2
	fi
	# The two by their pinned versions, built for CPUs; then the rest without what only CUDA's builds need.
	mapfile -t torch < <(sed -nE 's/^(torch|torchvision)==([0-9.]+).*/\1==\2+cpu/p' "$lock")
	install --no-deps --index "$torch_index" "${torch[@]}"
	rest=$(mktemp)
	trap 'rm -f "$rest"' EXIT
	"$uv" pip compile --quiet --python "$environment/bin/python" --generate-hashes --no-header \
		--constraint "$lock" --extra s3 --extra postgres --extra transformers \
		--no-emit-package torch --no-emit-package torchvision --no-emit-package triton pyproject.toml |
		awk '/^[a-z]/ {skip = /^(nvidia|cuda)-/} !skip' >"$rest"
	install --no-deps --require-hashes --requirement "$rest"
	install --no-deps .
else
	install --constraint "$lock" '.[s3,postgres,transformers]'
fi
