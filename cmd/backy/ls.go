package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"backy/engine"
	"backy/store"
)

func (p *program) lsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list backup names, or the levels of one",
		ArgsUsage: "[BACKUPNAME]",
		Description: `Without a name: the backup names of the repository at or above the current
folder (or of -b), with the size of the newest level and what it changed.
With a name: its levels. READ is what was read from the source, CHANGED what
differed from the level before, STORED what the level added to the
repository, OK how long ago a scrub found it whole ("-": never), DIFF how it
was found out what to read:

fast       fast diff between snapshots, refined by exact diff
exact      exact diff between snapshots
allocated  what is allocated, compared by checksum
hints      what the hints named
none       everything, compared by checksum`,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 1); err != nil {
				return err
			}
			return p.ls(c.Context, c.Args().First(), c.NArg() == 1)
		},
	}
}

func (p *program) ls(ctx context.Context, backupName string, given bool) error {
	at, err := locateNearest(p.common.backupDir)
	if given {
		at, err = locate(p.common.backupDir, backupName)
	}
	if err != nil {
		return err
	}
	repo, err := p.open(ctx, at)
	if err != nil {
		return err
	}
	if at.name == "" {
		return p.lsNames(ctx, repo, "", backupName)
	}
	list, err := levelsOf(ctx, repo, at.name)
	if err != nil {
		return err
	}
	if len(list.good)+len(list.bad) == 0 {
		return p.lsNames(ctx, repo, at.name, backupName)
	}
	scrubbed, err := repo.Scrubbed(ctx, at.name)
	if err != nil {
		return err
	}
	p.report.Levels = []levelReport{}
	for _, l := range list.good {
		p.report.Levels = append(p.report.Levels, levelReport{l, scrubbed.Of(&l)})
	}
	return errors.Join(p.print(levelTable(p.report.Levels, time.Now(), p.terminalWidth())), list.unreadable())
}

// lsNames lists the names, of a folder of names where one is given. Levels that
// cannot be read are left out and reported.
func (p *program) lsNames(ctx context.Context, repo *store.Repository, folder store.Name, typed string) error {
	names, err := repo.Names(ctx)
	if err != nil {
		return err
	}
	list := []nameReport{}
	var unreadable []error
	for _, n := range names {
		if folder != "" && !strings.HasPrefix(string(n), string(folder)+"/") {
			continue
		}
		levels, err := levelsOf(ctx, repo, n)
		if err != nil {
			return err
		}
		if bad := levels.unreadable(); bad != nil {
			unreadable = append(unreadable, bad)
		}
		if good := levels.good; len(good) > 0 {
			list = append(list, nameReport{n, len(good), good[len(good)-1]})
		}
	}
	if folder != "" && len(list) == 0 && unreadable == nil {
		return p.noSuchName(ctx, repo, place{dir: p.report.Repository.Path, name: folder}, typed)
	}
	p.report.Names = list
	return errors.Join(p.print(nameTable(list)), errors.Join(unreadable...))
}

func nameTable(list []nameReport) string {
	if len(list) == 0 {
		return ""
	}
	columns := []column{{"LEVELS", true}, {"NEWEST", false}, {"SIZE", true}, {"CHANGED", true}, {"NAME", false}}
	var rows [][]string
	for _, n := range list {
		l := n.Latest
		rows = append(rows, []string{
			strconv.Itoa(n.Levels), timeText(l.Time), shortBytes(l.Size), shortBytes(l.Stats.Changed), string(n.Name),
		})
	}
	return table(columns, rows, 0) // names are there to be typed: never cut
}

func levelTable(levels []levelReport, now time.Time, width int) string {
	columns := []column{
		{"LEVEL", true},
		{"TIME", false},
		{"SIZE", true},
		{"READ", true},
		{"CHANGED", true},
		{"STORED", true},
		{"OK", true},
		{"DIFF", false},
		{"SOURCE", false},
	}
	var rows [][]string
	for _, l := range levels {
		s := l.Stats
		rows = append(rows, []string{
			l.Number.String(), timeText(l.Time), shortBytes(l.Size), shortBytes(s.Read), shortBytes(s.Changed),
			shortBytes(s.Stored), ageText(l.Scrubbed, now), l.Origin.Diff, l.Origin.Source,
		})
	}
	return table(columns, rows, width)
}

// ageText is how long ago something was, in two or three columns; "-" for never.
func ageText(t, now time.Time) string {
	age := now.Sub(t)
	switch {
	case t.IsZero():
		return "-"
	case engine.Future(t, now):
		return "?"
	case age < time.Hour:
		return strconv.Itoa(int(max(age, 0)/time.Minute)) + "m"
	case age < 48*time.Hour:
		return strconv.Itoa(int(age/time.Hour)) + "h"
	}
	return strconv.Itoa(int(age/(24*time.Hour))) + "d"
}

// terminalWidth is that of the terminal that stdout is, else 0: what goes into
// a file or a pipe is not cut.
func (p *program) terminalWidth() int {
	f, ok := p.stdout.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}
