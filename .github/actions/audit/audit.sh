#!/usr/bin/env bash
# One audit for each line of IMAGES. All of them run; the exit code is that of the first that failed.
# Inputs come as variables, and reach the program as single arguments: no shell reads what stands in them.
set -euo pipefail

inv="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/inv"

# A value of true or false; anything else is a mistake that must not pass for either.
truth() {
    case "$2" in
    true) return 0 ;;
    false) return 1 ;;
    *)
        printf 'error: %s is %q\n  do: say true or false\n' "$1" "$2" >&2
        exit 2
        ;;
    esac
}

if [[ -z "${ARCHS//[[:space:]]/}" ]]; then
    printf 'error: arch names no card\n  do: say which, as arch: "7.5"\n' >&2
    exit 2
fi

flags=("--arch=$ARCHS")
if ! truth allow-ptx "$ALLOW_PTX"; then flags+=(--native); fi
if truth whole "$WHOLE"; then flags+=(--whole); fi
while IFS= read -r glob; do
    if [[ -n "$glob" ]]; then flags+=("--except=$glob"); fi
done <<<"$EXCEPT"

failed=0
count=0
while read -r image; do
    if [[ -z "$image" ]]; then continue; fi
    count=$((count + 1))
    of_registry=()
    # An image in the runner's engine has no choice of platforms.
    if [[ "$image" == *[.:]*/* && "$PLATFORM" != linux/amd64 ]]; then of_registry=("--platform=$PLATFORM"); fi
    printf '::group::audit %s\n' "${image//[^A-Za-z0-9.:\/@_-]/?}"
    code=0
    "$inv" audit "--target=$image" "${flags[@]}" "${of_registry[@]}" || code=$?
    printf '::endgroup::\n'
    if [[ "$code" != 0 && "$failed" == 0 ]]; then failed=$code; fi
done <<<"$IMAGES"

if [[ "$count" == 0 ]]; then
    printf 'error: image names no image\n  do: say which, as image: ghcr.io/me/app:v1\n' >&2
    exit 2
fi
exit "$failed"
