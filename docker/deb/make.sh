#!/usr/bin/env bash
# Makes the Debian package from what `make deb` built: see usage below.
set -euo pipefail

usage() {
	cat <<'END'
usage: make.sh BUILD   make BUILD/backy_VERSION_ARCH.deb from BUILD/backy, for this release of Debian and newer
                       ones: made on bookworm, one package is for bookworm, trixie and forky

The version is git's: that of a tag such as v1.2 is 1.2-1, 5 commits later it is 1.2+5.gHASH-1,
and without any tag 0~gitDATE.HASH-1.
END
}

readonly NFPM=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
CHECKOUT=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
readonly CHECKOUT

# version is the upstream part and the package's.
version() {
	local described
	described=$(git describe --tags --match 'v[0-9]*' 2>/dev/null || true)
	case $described in
	'') TZ=UTC git log -1 --date=format-local:%Y%m%d --abbrev=8 --format='0~git%cd.%h' ;;
	*-*-g*) sed 's/^v//; s/-\([0-9]*\)-g\(.*\)$/+\1.g\2/' <<<"$described" ;;
	*) echo "${described#v}" ;;
	esac | tr - '~' | sed 's/$/-1/'
}

# depends is what the binary needs of this release's libraries, as a list.
depends() {
	local dir
	dir=$(mktemp -d)
	mkdir "$dir/debian"
	printf 'Source: backy\n\nPackage: backy\nArchitecture: any\n' >"$dir/debian/control"
	(cd "$dir" && dpkg-shlibdeps -O --ignore-missing-info "$1") | sed -n 's/^shlibs:Depends=//p' | sed 's/, /\n/g'
	rm -r "$dir"
	echo adduser
}

changelog() {
	printf 'backy (%s) %s; urgency=medium\n\n  * Built from commit %s.\n\n -- %s  %s\n' "$1" "$(. /etc/os-release && echo "$VERSION_CODENAME")" \
		"$(git rev-parse HEAD)" "$(sed -n 's/^maintainer: //p' docker/deb/nfpm.yaml.in)" "$(TZ=UTC git log -1 --date=rfc-local --format=%cd)"
}

copyright() {
	printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: backy\n\nFiles: *\n'
	printf 'Copyright: %s\nLicense: Expat\n' "$(sed -n 's/^Copyright (c) //p' LICENSE)"
	sed '1,/^Copyright/d; /./,$!d' LICENSE | sed '/./,$!d' | sed 's/^$/./; s/^/ /'
}

main() {
	local build version go
	build=$(realpath "$1")
	cd "$CHECKOUT"
	go=$(command -v go || echo /usr/local/go/bin/go)
	version=$(version)
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
	export SOURCE_DATE_EPOCH
	rm -rf "$build"/{docs,man} "$build"/*.deb
	"$build/backy" docs "$build/docs"
	mkdir "$build/man"
	for page in "$build"/docs/*.[17]; do gzip -9n <"$page" >"$build/man/$(basename "$page").gz"; done
	changelog "$version" | gzip -9n >"$build/changelog.Debian.gz"
	copyright >"$build/copyright"
	depends "$build/backy" >"$build/depends"
	sed -e "s,@ARCH@,$(dpkg --print-architecture),; s,@VERSION@,$version,; s,@BUILD@,$build,; s,@MTIME@,$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)," \
		-e '/^@DEPENDS@$/{' -e "r $build/depends" -e 'd' -e '}' docker/deb/nfpm.yaml.in |
		sed '/^depends:$/,/^mtime:/{/^depends:\|^mtime:/!s/^/  - /}' >"$build/nfpm.yaml"
	# The flags of a build for librbd are none for a tool that runs here.
	GOFLAGS='' "$go" run "$NFPM" package --config "$build/nfpm.yaml" --packager deb --target "$build/" >&2
	ls "$build"/*.deb
}

case ${1:-} in
help | -h | --help) usage ;;
'' | -*)
	usage >&2
	exit 2
	;;
*) main "$@" ;;
esac
