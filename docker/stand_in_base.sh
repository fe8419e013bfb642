#!/usr/bin/env bash
# The stand-in base image, for machines that cannot pull from Microsoft's registry:  docker/stand_in_base.sh
#
# Debian bookworm's packages of what the runtime image takes from Azure's CPU base (Open MPI, Python 3.11 with headers,
# a C++ compiler, git), imported as the image phikit-base:stand-in. Then:  BASE_IMAGE=phikit-base:stand-in make image
# The packages come from this machine's own Debian mirror, over its own trust store (a private CA included). Nothing is
# done when the image is there already and was made by this very script. `--force` makes it anew.
set -euo pipefail

readonly TAG="phikit-base:stand-in"
readonly SUITE="bookworm"
readonly PACKAGES="openmpi-bin,python3.11,python3,python3-venv,python3-dev,g++,make,git,ca-certificates"
readonly KEYRING="/usr/share/keyrings/debian-archive-keyring.gpg"
# the image is as old as this file: an edit here makes the next call build again
RECIPE="$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-64)"
readonly RECIPE

fail() {
    printf 'stand-in base: %s\n' "$*" >&2
    exit 1
}

case "${1-}" in
'' | --force) ;;
-h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
*) fail "unknown argument $1; the only one is --force" ;;
esac

docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || fail "no Docker engine answers; start one first"
made_by="$(docker image inspect --format '{{index .Config.Labels "phikit.recipe"}}' "$TAG" 2>/dev/null || true)"
if [ "${1-}" != --force ] && [ "$made_by" = "$RECIPE" ]; then
    echo "stand-in base: $TAG is there already"
    exit 0
fi
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing; on Debian and Ubuntu: apt-get install mmdebstrap"
[ -f "$KEYRING" ] || fail "$KEYRING is missing; on Debian and Ubuntu: apt-get install debian-archive-keyring"

# site LABEL: where this machine fetches that archive from; nothing on a machine that is not Debian
site() {
    local found=""
    if command -v apt-get >/dev/null; then
        found="$(apt-get indextargets --format '$(SITE)|$(LABEL)' 'Created-By: Packages' |
            sed -n "s/|$1\$//p" | sort -u | head -n 1)"
    fi
    printf '%s\n' "$found"
}

debian="$(site Debian)"
security="$(site Debian-Security)"
signed="[signed-by=$KEYRING]"
# without any, mmdebstrap takes Debian's own archives
sources=()
if [ -n "$debian" ]; then
    sources=("deb $signed $debian $SUITE main" "deb $signed $debian $SUITE-updates main")
    [ -z "$security" ] || sources+=("deb $signed $security $SUITE-security main")
fi
echo "stand-in base: building $TAG from $SUITE's packages (two or three minutes)"
# no manual pages, translations or documents: nobody reads them in a container
mmdebstrap --quiet --variant=minbase --include="$PACKAGES" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --keyring="$KEYRING" "$SUITE" - "${sources[@]}" |
    docker import \
        --change "LABEL phikit.recipe=$RECIPE" \
        --change "LABEL org.opencontainers.image.title=phikit-stand-in-base" \
        --change "ENV LANG=C.UTF-8" \
        --change 'CMD ["bash"]' \
        --message "Debian $SUITE with $PACKAGES" - "$TAG" >/dev/null
docker image inspect --format 'stand-in base: {{.Id}}, {{.Size}} bytes' "$TAG"
