# Functions for scripts that test with the keys that the README makes: source it.
# shellcheck shell=bash

# readme_key ID DIR [POOL] makes client.ID with the command of the README, for
# the pool vms or another, and leaves its keyring in DIR.
readme_key() {
	local command
	command=$(sed -n -e "/^    ceph auth get-or-create client\\.$1 /{" -e ':a' -e 'p' -e '/\\$/{n' -e 'ba' -e '}' -e 'q' -e '}' \
		"$(dirname "${BASH_SOURCE[0]}")/../README.md")
	[[ $command ]] || {
		echo "rights.sh: the README makes no client.$1" >&2
		return 1
	}
	command=${command//pool=vms/pool=${3:-vms}}
	(umask 077 && eval "${command//\/etc\/ceph/$2}")
}
