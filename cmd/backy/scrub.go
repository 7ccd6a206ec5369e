package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
)

func (p *program) scrubCommand() *cli.Command {
	var level, source string
	percent := percentValue(100)
	return &cli.Command{
		Name:      "scrub",
		Usage:     "check a level against its checksums, and against a source",
		ArgsUsage: "BACKUPNAME",
		Description: `Reads the chunks of a level, or a share drawn at random, and checks them.
What is bad is written down, and the next backup of the name mends it where
the source still has it.

With -s it is a deep scrub: the level is compared with SOURCE too, which is
rbd:POOL[/NAMESPACE]/IMAGE[@SNAP], a file or a device. A source that changed
since is different, so name the snapshot of the level.

` + levelHelp,
		Flags: []cli.Flag{
			levelFlag(&level),
			&cli.StringFlag{
				Name: "source", Aliases: []string{"s"}, Destination: &source,
				Usage: "compare with `SOURCE` too",
			},
			&cli.GenericFlag{
				Name: "percentile", Aliases: []string{"p"}, Value: &percent, DefaultText: "100",
				Usage: "check `PERCENT` of the chunks",
			},
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1); err != nil {
				return err
			}
			return p.scrub(c.Context, c.Args().First(), level, source, float64(percent))
		},
	}
}

func (p *program) scrub(ctx context.Context, backupName, levelArg, sourceArg string, percent float64) error {
	wanted, err := parseLevel(levelArg, time.Now())
	if err != nil {
		return err
	}
	if sourceArg == "-" {
		return usagef("a deep scrub cannot read a pipe: it needs an image, a device or a file")
	}
	repo, at, levels, err := p.named(ctx, backupName)
	if err != nil {
		return err
	}
	level, err := p.pick(wanted, levels)
	if err != nil {
		return err
	}
	var progress engine.Progress
	options := engine.ScrubOptions{Percent: percent, Progress: &progress}
	if sourceArg != "" {
		if options.Source, err = p.openView(ctx, sourceArg, at); err != nil {
			return p.maybeImage(err, sourceArg)
		}
	}
	var report engine.ScrubReport
	err = p.watch("scrub "+string(at.name), &progress, func() (err error) {
		report, err = engine.Scrub(ctx, repo, level, options)
		return err
	})
	p.report.Level, p.report.Scrub = &level, newScrubReport(report)
	p.talk.say("%s level %s: %s", at.name, level.Number, scrubSummary(report))
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
