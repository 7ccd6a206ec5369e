package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/store"
)

// snapshotsFlags are those of snapshots alone.
type snapshotsFlags struct {
	pickFlags
	clean  bool
	dryRun bool
}

func (p *program) snapshotsCommand() *cli.Command {
	var f snapshotsFlags
	return &cli.Command{
		Name:      "snapshots",
		Usage:     "list the snapshots that backups made, and remove strays",
		ArgsUsage: "rbd:POOL [BACKUPDIR]",
		UsageText: "backy snapshots [options] rbd:POOL[/NAMESPACE] [BACKUPDIR]",
		Description: `Lists the snapshots of the pool's images that backy made, of whichever
repository. KIND is what they are good for:

level    LEVEL was read from it; it is the base of the next diff
waiting  it was made ahead (--snapshot-only), and the next backup reads it
in use   its run may be at work; if that was killed, the next backup of the
         image finds out, or else a day goes by
stray    its run is over, and no backup needs it: it left no level, or that
         was removed or has a successor; or the image was renamed or copied
         and carries along what belongs to another name or image
foreign  it belongs to another repository, whose id begins as shown

SPACE is what has changed since the snapshot, up to the next one or to now,
in whole objects: so much it keeps of the past at most ("-": fast diff cannot
tell). --clean removes strays: those of this repository whose runs it knows
to be over, and never any other. A backup does so for its own image.
A snapshot belongs to a level by the image's id and its own, not by its name.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{
				Name: "clean", DisableDefaultText: true, Destination: &f.clean,
				Usage: "remove strays",
			},
			&cli.BoolFlag{
				Name: "dry-run", Aliases: []string{"n"}, DisableDefaultText: true, Destination: &f.dryRun,
				Usage: "with --clean: only say which would go",
			},
		}, f.pickFlags.flags("")...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 2); err != nil {
				return err
			}
			if f.dryRun && !f.clean {
				return usagef("--dry-run goes with --clean only")
			}
			if pool := c.Args().First(); kindOf(pool) != kindRBD {
				return usagef("%s: want rbd:POOL[/NAMESPACE]", pool)
			}
			return p.snapshots(c.Context, f, c.Args().Get(0), c.Args().Get(1))
		},
	}
}

// snapshotReport is a snapshot that a backy made.
type snapshotReport struct {
	Snapshot   string            `json:"snapshot"`
	ID         uint64            `json:"id"`
	Time       time.Time         `json:"time"`
	Kind       string            `json:"kind"`
	Repository string            `json:"repository"` // how its id begins
	Name       store.Name        `json:"name,omitempty"`
	Level      store.LevelNumber `json:"level,omitempty"`
	Size       int64             `json:"size"`
	Space      *int64            `json:"space,omitempty"` // absent where it is not known
	Removed    bool              `json:"removed,omitempty"`
	Error      string            `json:"error,omitempty"` // why it was not removed
}

func snapshotTable(list []snapshotReport, now time.Time, width int) string {
	if len(list) == 0 {
		return ""
	}
	columns := []column{{"KIND", false}, {"LEVEL", true}, {"SPACE", true}, {"AGE", true}, {"OF", false}, {"SNAPSHOT", false}}
	var rows [][]string
	for _, s := range list {
		level, space := "-", "-"
		if s.Level != 0 {
			level = s.Level.String()
		}
		if s.Space != nil {
			space = shortBytes(*s.Space)
		}
		rows = append(rows, []string{
			s.Kind, level, space, ageText(s.Time, now), s.Repository, strings.TrimPrefix(s.Snapshot, rbdScheme),
		})
	}
	return table(columns, rows, width)
}
