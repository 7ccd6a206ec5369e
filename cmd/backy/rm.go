package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/store"
)

func (p *program) rmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove levels",
		ArgsUsage: "BACKUPNAME LEVEL...",
		Description: `Removes levels for good: all of those named, or none. LEVEL is a number as
ls shows it, or "latest". The other levels stay whole, whichever go.`,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 2, -1); err != nil {
				return err
			}
			return p.rm(c.Context, c.Args().First(), c.Args().Tail())
		},
	}
}

// maybeFull adds a hint if there is no room in the repository for what is needed to
// make some.
func (p *program) maybeFull(err error) error {
	if !store.IsFull(err) {
		return err
	}
	dir := p.report.Repository.Path
	hint := fmt.Sprintf("free some 100 KiB on the file system of %s, then run this again", dir)
	if p.report.Command != "gc" {
		hint += "; to reclaim what removed levels held: " + shellLine([]string{"gc", dir})
	}
	return withHint(err, hint)
}

func (p *program) rm(ctx context.Context, backupName string, wanted []string) error {
	selectors := make([]selector, len(wanted))
	for i, w := range wanted {
		s, err := parseLevel(w, time.Now())
		if err != nil || (s.number == 0 && !s.latest) {
			return usagef(`level %q: rm takes numbers and "latest"`, w)
		}
		selectors[i] = s
	}
	repo, at, levels, err := p.named(ctx, backupName)
	if err != nil {
		return err
	}
	var numbers []store.LevelNumber
	for _, s := range selectors {
		level, err := p.pick(s, levels)
		if err != nil {
			return err
		}
		if !slices.Contains(numbers, level.Number) {
			numbers = append(numbers, level.Number)
		}
	}
	slices.Sort(numbers)
	if err := engine.Remove(ctx, repo, at.name, numbers); err != nil {
		return p.maybeFull(err)
	}
	p.report.Removed = numbers
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = n.String()
	}
	p.talk.with("name", at.name, "level_numbers", numbers).say("%s: removed level %s", at.name, strings.Join(texts, ", "))
	return nil
}
