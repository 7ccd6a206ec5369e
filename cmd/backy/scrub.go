package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
)

// scrubFlags are those of scrub alone.
type scrubFlags struct {
	level       string
	source      string
	percent     percentValue
	all         bool
	quick       bool
	maxDuration durationValue
	readers     int
	limit       rateValue
	beat        durationValue // shorter in tests
}

func (p *program) scrubCommand() *cli.Command {
	f := scrubFlags{percent: 100}
	return &cli.Command{
		Name:      "scrub",
		Usage:     "check a level or the whole repository against checksums",
		ArgsUsage: "BACKUPNAME | --all [BACKUPDIR]",
		Description: `Reads the chunks of a level, or a share drawn at random, and checks them.
What is bad is written down, and the next backup of the name mends it where
the source still has it.

With -s it is a deep scrub: the level is compared with SOURCE too, which is
rbd:POOL[/NAMESPACE]/IMAGE[@SNAP], a file or a device. A source that changed
since is different, so name the snapshot of the level.

With --all everything in the repository is checked: each pack is read once,
from front to back and past the page cache, whichever levels share it; both
copies of map packs, levels' records and all else besides. --max-duration
takes the longest unchecked packs first and remembers, so that a scrub every
night goes round the repository. Backups and gc may go on meanwhile.

` + levelHelp,
		Flags: []cli.Flag{
			levelFlag(&f.level),
			&cli.StringFlag{
				Name: "source", Aliases: []string{"s"}, Destination: &f.source,
				Usage: "compare with `SOURCE` too",
			},
			&cli.GenericFlag{
				Name: "percentile", Aliases: []string{"p"}, Value: &f.percent, DefaultText: "100",
				Usage: "check `PERCENT` of the chunks",
			},
			&cli.BoolFlag{
				Name: "all", Destination: &f.all, DisableDefaultText: true,
				Usage: "check the whole repository",
			},
			&cli.BoolFlag{
				Name: "quick", Destination: &f.quick, DisableDefaultText: true,
				Usage: "check only the CRC of what is stored",
			},
			&cli.GenericFlag{
				Name: "max-duration", Value: &f.maxDuration,
				Usage: "with --all: stop after `TIME`, such as 2h",
			},
			&cli.IntFlag{
				Name: "readers", Destination: &f.readers, DefaultText: "8",
				Usage: "read `N` packs or stretches at a time",
			},
			limitFlag(&f.limit),
			holdFlag(&f.beat),
			metricsFlag(&p.metrics),
		},
		Action: func(c *cli.Context) error {
			least := 1
			if f.all {
				least = 0
			}
			if err := wantArgs(c, least, 1); err != nil {
				return err
			}
			if err := f.check(c.IsSet("level")); err != nil {
				return err
			}
			p.metrics.source = c.Args().First()
			if f.all {
				return p.scrubAll(c.Context, c.Args().First(), f)
			}
			return p.scrub(c.Context, c.Args().First(), f)
		},
	}
}

// check refuses flags that do not go together.
func (f scrubFlags) check(level bool) error {
	switch {
	case f.all && level:
		return usagef("--level does not go with --all, which checks all levels")
	case f.all && f.source != "":
		return usagef("--source does not go with --all: a deep scrub is of one level")
	case f.quick && f.source != "":
		return usagef("--quick does not go with --source: a deep scrub compares the bytes themselves")
	case f.maxDuration != 0 && !f.all:
		return usagef("--max-duration goes with --all only")
	case f.maxDuration != 0 && f.percent < 100:
		return usagef("--max-duration and --percentile exclude each other: what is remembered is which packs were checked whole")
	case f.readers < 0:
		return usagef("--readers: %d is negative", f.readers)
	case f.source == "-":
		return usagef("a deep scrub cannot read a pipe: it needs an image, a device or a file")
	}
	return nil
}

func (p *program) scrub(ctx context.Context, backupName string, f scrubFlags) error {
	wanted, err := parseLevel(f.level, time.Now())
	if err != nil {
		return err
	}
	repo, at, levels, err := p.named(ctx, backupName)
	if err != nil {
		return err
	}
	p.metrics.about(repo, at.name)
	level, err := p.pick(wanted, levels)
	if err != nil {
		return err
	}
	var progress engine.Progress
	options := engine.ScrubOptions{Percent: float64(f.percent), Quick: f.quick, Readers: f.readers, Rate: f.limit.rate(), Progress: &progress, Warn: p.talk.warn, Beat: time.Duration(f.beat)}
	if f.source != "" {
		if options.Source, err = p.openView(ctx, f.source, at); err != nil {
			return p.maybeImage(err, f.source)
		}
	}
	var report engine.ScrubReport
	err = p.watch("scrub "+string(at.name), &progress, func() (err error) {
		report, err = engine.Scrub(ctx, repo, level, options)
		return err
	})
	p.report.Level, p.report.Scrub = &level, newScrubReport(report)
	p.talk.with("name", at.name, "level_number", level.Number, "checked", report.Checked, "bytes", report.Bytes,
		"damaged", len(report.Damaged), "different", len(report.Different), "seconds", report.Seconds).
		say("%s level %s: %s", at.name, level.Number, scrubSummary(report))
	return err
}

func scrubSummary(r engine.ScrubReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "checked %s, %s", count(r.Checked, "chunk"), bytesText(r.Bytes))
	if r.Compared > 0 {
		fmt.Fprintf(&b, ", compared %s with the source", bytesText(r.Compared))
	}
	fmt.Fprintf(&b, ", %s", count(int64(len(r.Damaged)), "damaged place"))
	if r.Compared > 0 {
		fmt.Fprintf(&b, ", %s", count(int64(len(r.Different)), "different place"))
	}
	if r.MapNodes > 0 {
		fmt.Fprintf(&b, ", %s with a bad copy", count(r.MapNodes, "map node"))
	}
	fmt.Fprintf(&b, ", %s", secondsText(r.Seconds))
	return b.String()
}
