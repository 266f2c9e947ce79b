#!/bin/sh
# Gets a strongSwan that knows ML-KEM from Debian's packages, beside the installed one: the first
# Debian whose strongSwan has it is 14 ("forky"). Nothing is installed and apt's own state is left
# alone. DEST receives usr/ with charon, its plugins and every library it needs, and `charon`, which
# runs it; the mount namespace that `ip netns exec` makes has usr/ in place of the machine's.
# Exits with 75 if they cannot be fetched.
# usage: strongswan6.sh DEST
set -eu
suite=forky
keys=/usr/share/keyrings/debian-archive-keyring.gpg
packages="strongswan-charon strongswan-swanctl strongswan-libcharon libcharon-extra-plugins libstrongswan
    libstrongswan-standard-plugins libstrongswan-extra-plugins
    libc6 libgcc-s1 libssl3t64 libzstd1 zlib1g libgmp10 libcap2 libsystemd0"
[ -r "$keys" ] || { echo "no Debian archive keys" >&2; exit 1; }
dest=$1
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
work=$dest/work.$$
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/etc/apt/apt.conf.d" "$work/etc/apt/preferences.d" "$work/var/lib/apt/lists/partial" \
    "$work/var/cache/apt/archives/partial" "$work/var/lib/dpkg" "$work/packages" "$work/root"
: >"$work/var/lib/dpkg/status"
echo "deb [signed-by=$keys] http://deb.debian.org/debian $suite main" >"$work/etc/apt/sources.list"
apt() {
    timeout 120 apt-get -qq -o Dir="$work" -o Dir::State::status="$work/var/lib/dpkg/status" \
        -o APT::Sandbox::User=root -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}
apt -o APT::Update::Error-Mode=any update || exit 75
# shellcheck disable=SC2086 # a list
(cd "$work/packages" && apt download $packages) || exit 75
for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/root"; done
rm -rf "$work/root/usr/share" "$dest/usr"
mv "$work/root/usr" "$dest/usr"
cat >"$dest/charon" <<W
#!/bin/sh
mount --bind "$dest/usr" /usr && exec /usr/lib/ipsec/charon "\$@"
W
chmod 755 "$dest/charon"
# As root it can be seen whether that is all that it needs.
[ "$(id -u)" != 0 ] || unshare -m sh -c 'mount --make-rprivate / && exec "$0" --version' "$dest/charon"
