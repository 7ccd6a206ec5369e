package main

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/store/pending"
)

// levelHelp explains LEVEL.
const levelHelp = `LEVEL is a number as ls shows it, "latest", or a time or date such as
2006-01-02 or "2006-01-02 15:04", local where it names no zone: the newest
level not after it, a date meaning its end.`

func levelFlag(destination *string) cli.Flag {
	return &cli.StringFlag{
		Name: "level", Aliases: []string{"l"}, Value: "latest", DefaultText: "latest", Destination: destination,
		Usage: "number, time or date of the `LEVEL`",
	}
}

// holdFlag makes a reader's looks after its level more frequent in tests.
func holdFlag(destination *durationValue) cli.Flag {
	return &cli.GenericFlag{Name: "beat", Hidden: true, Value: destination}
}

// targetFlags are about what a restore writes to.
type targetFlags struct {
	force      bool
	metadata   bool // set it in any case
	noMetadata bool // in none
}

func (f targetFlags) check(targetArg string) error {
	switch {
	case f.metadata && f.noMetadata:
		return usagef("--metadata and --no-metadata exclude each other")
	case (f.metadata || f.noMetadata) && kindOf(targetArg) != kindRBD:
		return usagef("--metadata and --no-metadata go with rbd: targets only")
	}
	return nil
}

func (p *program) restoreCommand() *cli.Command {
	var level string
	var skip bool
	var to targetFlags
	var limit rateValue
	var beat durationValue
	return &cli.Command{
		Name:      "restore",
		Usage:     "restore a level to an image, a device, a file or a pipe",
		ArgsUsage: "BACKUPNAME TARGET",
		Description: `TARGET is rbd:POOL[/NAMESPACE]/IMAGE, a file, a block device, or "-" for
standard output. An image is created with the layout and the metadata (rbd
image-meta) that it had; one that exists keeps its own. An existing file
or device is overwritten, as cp does; for an existing image, or a device that
is mounted, -f is needed.

A level of which something is known to be damaged is refused before anything
is written, and the places are named. With --skip-damaged the rest is
written, and zeros in those places, over an existing target too.

` + levelHelp,
		Flags: []cli.Flag{
			levelFlag(&level),
			&cli.BoolFlag{
				Name: "force", Aliases: []string{"f"}, Destination: &to.force, DisableDefaultText: true,
				Usage: "overwrite an existing image or a mounted device",
			},
			&cli.BoolFlag{
				Name: "metadata", Destination: &to.metadata, DisableDefaultText: true,
				Usage: "set the level's metadata on an existing image, too",
			},
			&cli.BoolFlag{
				Name: "no-metadata", Destination: &to.noMetadata, DisableDefaultText: true,
				Usage: "do not set the level's metadata on a new image",
			},
			&cli.BoolFlag{
				Name: "skip-damaged", Destination: &skip, DisableDefaultText: true,
				Usage: "write zeros for what cannot be read, and exit 3",
			},
			limitFlag(&limit),
			holdFlag(&beat),
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 2, 2); err != nil {
				return err
			}
			if err := to.check(c.Args().Get(1)); err != nil {
				return err
			}
			return p.restore(c.Context, c.Args().Get(0), c.Args().Get(1), level, to, engine.RestoreOptions{
				SkipDamaged: skip, Rate: limit.rate(), Beat: time.Duration(beat), Warn: p.talk.warn,
			})
		},
	}
}

func (p *program) restore(ctx context.Context, backupName, targetArg, levelArg string, to targetFlags, options engine.RestoreOptions) error {
	kind := kindOf(targetArg)
	if kind == kindPipe && p.json {
		return usagef("--json does not go with TARGET -: both print on stdout")
	}
	wanted, err := parseLevel(levelArg, time.Now())
	if err != nil {
		return err
	}
	repo, at, levels, err := p.named(ctx, backupName)
	if err != nil {
		return p.maybeSwapped(err, "restore", targetArg, backupName)
	}
	level, err := p.pick(wanted, levels)
	if err != nil {
		return err
	}
	p.talk.detail("restoring level %s of %s, %s, to %s", level.Number, timeText(level.Time), bytesText(level.Size), targetArg)

	var progress engine.Progress
	options.Progress = &progress
	var report engine.RestoreReport
	work := func() (err error) {
		report, err = engine.Stream(ctx, repo, level, waiting{p.stdout}, options)
		return err
	}
	if kind != kindPipe {
		target, err := p.openTarget(ctx, targetArg, at, to)
		if err != nil {
			return p.maybeForce(err)
		}
		work = func() (err error) {
			report, err = engine.Restore(ctx, repo, level, target, options)
			return err
		}
	}
	err = p.watch("restore "+string(at.name), &progress, work)
	damaged := isA[*engine.DamagedError](err)
	if err != nil && (!options.SkipDamaged || !damaged) {
		if damaged {
			return p.withFlag(err, "--skip-damaged")
		}
		return p.maybeForce(err)
	}
	p.report.Level, p.report.Target, p.report.Restore = &level, targetArg, newRestoreReport(report)
	for _, e := range report.Damaged {
		p.talk.say("%s level %s: skipped %d bytes at %d", at.name, level.Number, e.Length, e.Offset)
	}
	p.talk.with("name", at.name, "level_number", level.Number, "target", targetArg, "written", report.Written, "seconds", report.Seconds).
		say("%s level %s, %s: restored to %s, wrote %s, zeroed %s, %s", at.name, level.Number, bytesText(level.Size),
			targetArg, bytesText(report.Written), bytesText(report.Zeroed), secondsText(report.Seconds))
	return err
}

// waiting is standard output, of which the reader may be waited for.
type waiting struct{ w io.Writer }

func (w waiting) Write(p []byte) (int, error) {
	defer pending.Begin("write to", "", "standard output").End()
	return w.w.Write(p)
}

// maybeForce hints at -f where that is what is missing.
func (p *program) maybeForce(err error) error {
	if !needsForce(err) {
		return err
	}
	return p.withFlag(err, "-f")
}

// withFlag hints at the line with one more flag.
func (p *program) withFlag(err error, flag string) error {
	if slices.Contains(p.typed, "--") {
		return withHint(err, shellLine(slices.Concat([]string{flag}, p.typed)))
	}
	return withHint(err, shellLine(slices.Concat(p.typed, []string{flag})))
}
