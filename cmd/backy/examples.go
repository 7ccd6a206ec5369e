package main

import "strings"

// examples are lines to begin with, by command; "" is backy itself.
var examples = map[string][]string{
	"": {
		"backy backup rbd:vms/web1 /mnt/backups/web1",
		"backy restore /mnt/backups/web1 rbd:vms/web1-restored",
		"backy backup --help",
	},
	"backup": {
		"backy backup rbd:vms/web1 /mnt/backups/web1",
		"backy backup /dev/vg0/image /mnt/backups/image",
		"backy backup --forget --keep-daily 7 --keep-weekly 5 rbd:vms /mnt/backups",
	},
	"restore": {
		"backy restore /mnt/backups/web1 rbd:vms/web1-restored",
		"backy restore -l 2026-11-20 /mnt/backups/web1 web1.raw",
		"backy restore /mnt/backups/shop.dump - | pg_restore -d shop",
	},
	"scrub": {
		"backy scrub /mnt/backups/web1",
		"backy scrub -l 3 -s rbd:vms/web1@monday /mnt/backups/web1",
		"backy scrub --all --max-duration 2h /mnt/backups",
	},
	"status": {
		"backy status --max-age 26h rbd:vms /mnt/backups",
		"backy status --json -b /mnt/backups",
	},
	"snapshots": {
		"backy snapshots rbd:vms /mnt/backups",
		"backy snapshots --clean --dry-run rbd:vms /mnt/backups",
	},
	"ls": {
		"backy ls /mnt/backups",
		"backy ls /mnt/backups/web1",
		"backy ls --json -b /mnt/backups vms/web1",
	},
	"du": {
		"backy du -b /mnt/backups",
		"backy du -b /mnt/backups vms/web1",
	},
	"rm": {
		"backy rm /mnt/backups/web1 1 2",
		"backy rm -b /mnt/backups vms/web1 latest",
	},
	"forget": {
		"backy forget -n --keep-daily 7 --keep-monthly 12 -b /mnt/backups",
		"backy forget --keep-within 30d --gc -b /mnt/backups 'vms/*'",
	},
	"protect": {
		"backy protect /mnt/backups/web1 3",
		"backy protect -b /mnt/backups vms/web1 2026-11-20",
	},
	"unprotect": {"backy unprotect /mnt/backups/web1 3"},
	"gc": {
		"backy gc -n /mnt/backups",
		"backy gc --max-wait 1h /mnt/backups",
	},
	"recover": {"backy recover /mnt/backups"},
	"init": {
		"backy init /mnt/backups",
		"backy init --chunk-size 256K /mnt/backups",
	},
	"version": {
		"backy version",
		"backy version --json",
	},
	"help": {"backy help backup"},
	"docs": {"backy docs /tmp/backy-docs"},
}

// exampleHelp is the part of a command's help that shows its examples.
func exampleHelp(command string) string {
	if len(examples[command]) == 0 {
		return ""
	}
	return "\nEXAMPLES:\n   " + strings.Join(examples[command], "\n   ") + "\n"
}
