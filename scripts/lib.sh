# shellcheck shell=sh
# What the scripts share. Sourced by them, with `set -eu`, from the project's directory.

fail() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

# quietly WHAT COMMAND...: says WHAT, runs COMMAND, and shows its output only when it fails.
quietly() {
    what=$1
    shift
    printf '%s ...\n' "$what" >&2
    output=$("$@" 2>&1 </dev/null) || {
        status=$?
        printf '%s\n' "$output" >&2
        fail "$what: this failed with exit status $status, see above"
    }
}

# can_apt_install: whether this is root on Debian or one of its children.
can_apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1
}

# apt_install PACKAGE...: a fresh machine has no package lists yet, so they are fetched first.
apt_install() {
    quietly "Fetching Debian's package lists" \
        env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update
    quietly "Installing $* (apt-get)" \
        env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "$@"
}
