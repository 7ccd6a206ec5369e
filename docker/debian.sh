# Functions for scripts that make a Debian of their own by debootstrap: source it.
# shellcheck shell=bash

# this_release is the machine's own; empty where that is not Debian.
this_release() { (. /etc/os-release && if [[ $ID == debian ]]; then echo "${VERSION_CODENAME:-}"; fi); }

# this_mirror is where this machine's apt finds Debian.
this_mirror() {
	local mirror
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Codename: $(this_release)" |
		head -n 1) || true
	echo "${mirror:-http://deb.debian.org/debian}"
}

# proxies hands this machine's proxy of apt to what runs debootstrap or apt.
proxies() {
	local http='' https=''
	eval "$(apt-config shell http Acquire::http::Proxy https Acquire::https::Proxy)"
	if [[ $http && $http != DIRECT ]]; then export http_proxy=$http; fi
	if [[ $https && $https != DIRECT ]]; then export https_proxy=$https; fi
}

# bootstrap RELEASE ROOT MIRROR INCLUDE makes a small Debian in ROOT, as root. What
# it says goes to ROOT/.debootstrap, which is there until the root is whole.
bootstrap() {
	local script=/usr/share/debootstrap/scripts/$1
	# A release that is younger than this machine's debootstrap is made as sid is.
	[[ -e $script ]] || script=$(dirname "$script")/sid
	debootstrap --variant=minbase ${4:+--include="$4"} --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
		"$1" "$2" "$3" "$script" >"$2/.debootstrap" || {
		tail -n 5 "$2/.debootstrap" >&2
		return 1
	}
	# What a power cut leaves of it is made anew.
	echo force-unsafe-io >"$2/etc/dpkg/dpkg.cfg.d/unsafe"
	# A mirror may stand still for longer than the lists of a testing release are valid.
	echo 'Acquire::Check-Valid-Until "false";' >"$2/etc/apt/apt.conf.d/90still-mirror"
}

# clean_debian RELEASE [MIRROR] prints the path of an archive of that release and
# nothing more, with no lists of packages. It is made once and kept in .cache.
clean_debian() {
	local release=$1 cache archive made sudo=()
	cache=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")/.cache
	archive=$cache/$release.tar
	mkdir -p "$cache"
	(
		flock 9
		if [[ -e $archive ]]; then exit; fi
		"$(dirname "${BASH_SOURCE[0]}")/deps.sh" other >&2
		if ((UID)); then sudo=(sudo -E); fi
		made=$(mktemp -d "$cache/.tmp-XXXXXX")
		trap '"${sudo[@]}" rm -rf "$made"' EXIT
		proxies
		echo "making an archive of $release in $archive" >&2
		"${sudo[@]}" bash -euc '. "$1"; mkdir -m 755 "$3/root"; bootstrap "$2" "$3/root" "$4" ca-certificates
			rm -rf "$3/root/.debootstrap" "$3"/root/var/lib/apt/lists/* "$3"/root/var/cache/apt/archives/*.deb
			tar -C "$3/root" --one-file-system --exclude "./dev/*" -cf "$3/tar" .' \
			bash "${BASH_SOURCE[0]}" "$release" "$made" "${2:-$(this_mirror)}" || exit
		mv "$made/tar" "$archive"
	) 9>"$cache/.lock" || return
	echo "$archive"
}

# on RELEASE COMMAND... runs a command in the checkout: on this machine if it is of
# that release, else in a root of it.
on() {
	local checkout
	checkout=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")
	if [[ $1 == "$(this_release)" ]]; then
		(cd "$checkout" && "${@:2}")
	else
		"$checkout/docker/other.sh" "$@"
	fi
}

# has_ceph RELEASE tells whether that release can be had, with Ceph in it.
has_ceph() {
	local code=0
	[[ $1 == "$(this_release)" ]] || on "$1" true || code=$?
	((code == 0 || code == 69)) || exit "$code"
	return "$code"
}
