package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/store"
)

// forgetFlags are those of forget alone.
type forgetFlags struct {
	keep   engine.Keep
	dryRun bool
	gc     bool

	maxWait durationValue
}

func (p *program) forgetCommand() *cli.Command {
	var f forgetFlags
	return &cli.Command{
		Name:      "forget",
		Usage:     "remove levels that a policy does not keep",
		ArgsUsage: "[PATTERN]",
		Description: `Removes the levels that no rule keeps, of all names or of those that PATTERN
matches (* and ? match no slash, ** does). Hours, days and so on are those of
local time that have a level; protected levels stay. TIME is such as 30d, 8w
or 12h.`,
		Flags: append(keepFlags(&f.keep, ""),
			&cli.BoolFlag{
				Name: "dry-run", Aliases: []string{"n"}, DisableDefaultText: true, Destination: &f.dryRun,
				Usage: "only say which would go, and why others stay",
			},
			&cli.BoolFlag{
				Name: "gc", DisableDefaultText: true, Destination: &f.gc,
				Usage: "give back the space at once: see backy gc",
			},
			&cli.GenericFlag{
				Name: "max-wait", Value: &f.maxWait,
				Usage: "with --gc: wait at most `TIME` for backups",
			},
		),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 1); err != nil {
				return err
			}
			if err := f.keep.Validate(); err != nil {
				return usagef("%v", err)
			}
			if f.maxWait != 0 && !f.gc {
				return usagef("--max-wait goes with --gc only")
			}
			return p.forget(c.Context, f, c.Args().First())
		},
	}
}

// keepFlags are the rules of a policy.
func keepFlags(keep *engine.Keep, category string) []cli.Flag {
	rule := func(name, what string, n *int) cli.Flag {
		return &cli.IntFlag{Name: name, Destination: n, Usage: "keep " + what, Category: category}
	}
	return []cli.Flag{
		rule("keep-last", "the newest `N`", &keep.Last),
		rule("keep-hourly", "the newest of each of `N` hours", &keep.Hourly),
		rule("keep-daily", "the newest of each of `N` days", &keep.Daily),
		rule("keep-weekly", "the newest of each of `N` weeks, from Monday", &keep.Weekly),
		rule("keep-monthly", "the newest of each of `N` months", &keep.Monthly),
		rule("keep-yearly", "the newest of each of `N` years", &keep.Yearly),
		&cli.GenericFlag{
			Name: "keep-within", Value: (*spanValue)(&keep.Within), Category: category,
			Usage: "keep what is less than `TIME` (30d) older than the newest",
		},
	}
}

// forget goes on with the other names where one fails.
func (p *program) forget(ctx context.Context, f forgetFlags, pattern string) error {
	match, err := compilePattern(pattern)
	if err != nil {
		return err
	}
	repo, err := p.openGiven(ctx, "")
	if err != nil {
		return err
	}
	names, err := repo.Names(ctx)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(n store.Name) bool { return !match(string(n)) })
	if len(names) == 0 && pattern != "" {
		return fmt.Errorf("%s: no backup name matches", pattern)
	}
	var all []engine.Decision
	var failed []error
	for _, name := range names {
		decisions, err := engine.Forget(ctx, repo, name, f.keep, f.dryRun)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		all = append(all, decisions...)
	}
	p.report.Forget = append([]engine.Decision{}, all...)
	if err := p.print(forgetTable(all, f.dryRun)); err != nil {
		failed = append(failed, err)
	}
	if f.gc && len(failed) == 0 {
		return p.gcAfter(ctx, repo, gcFlags{dryRun: f.dryRun, maxWait: f.maxWait})
	}
	return errors.Join(failed...)
}

func forgetTable(decisions []engine.Decision, dryRun bool) string {
	if len(decisions) == 0 {
		return ""
	}
	gone := "removed"
	if dryRun {
		gone = "would go"
	}
	columns := []column{{"LEVEL", true}, {"TIME", false}, {"KEPT AS", false}, {"NAME", false}}
	var rows [][]string
	for _, d := range decisions {
		why := strings.Join(d.Reasons, " ")
		if !d.Keep {
			why = gone
		}
		rows = append(rows, []string{d.Level.Number.String(), timeText(d.Level.Time), why, string(d.Level.Name)})
	}
	return table(columns, rows, 0)
}

func (p *program) protectCommand() *cli.Command {
	return &cli.Command{
		Name:        "protect",
		Usage:       "keep a level from being removed",
		ArgsUsage:   "BACKUPNAME LEVEL",
		Description: "Neither rm nor forget removes a protected level, until unprotect.\n\n" + levelHelp,
		Action: func(c *cli.Context) error {
			return p.setProtection(c, "protected", func(ctx context.Context, r *store.Repository, l store.Level) error {
				return r.Protect(ctx, l.Name, l.Number)
			})
		},
	}
}

func (p *program) unprotectCommand() *cli.Command {
	return &cli.Command{
		Name:        "unprotect",
		Usage:       "undo protect",
		ArgsUsage:   "BACKUPNAME LEVEL",
		Description: levelHelp,
		Action: func(c *cli.Context) error {
			return p.setProtection(c, "not protected any more", func(ctx context.Context, r *store.Repository, l store.Level) error {
				return r.Unprotect(ctx, l.Name, l.Number)
			})
		},
	}
}

func (p *program) setProtection(c *cli.Context, done string, set func(context.Context, *store.Repository, store.Level) error) error {
	if err := wantArgs(c, 2, 2); err != nil {
		return err
	}
	wanted, err := parseLevel(c.Args().Get(1), time.Now())
	if err != nil {
		return err
	}
	repo, at, levels, err := p.named(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	level, err := p.pick(wanted, levels)
	if err != nil {
		return err
	}
	if err := set(c.Context, repo, level); err != nil {
		return err
	}
	p.report.Level = &level
	p.talk.say("%s level %s: %s", at.name, level.Number, done)
	return nil
}

// spanValue is a flag's time span of days and weeks too: 30d, 8w, 12h.
type spanValue time.Duration

func (v *spanValue) String() string { return (*durationValue)(v).String() }

func (v *spanValue) Set(s string) error {
	for unit, length := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseUint(digits, 10, 15)
			if err != nil || n == 0 {
				return fmt.Errorf("not a time such as 30d, 8w or 12h")
			}
			*v = spanValue(time.Duration(n) * length)
			return nil
		}
	}
	var d durationValue
	if err := d.Set(s); err != nil {
		return fmt.Errorf("not a time such as 30d, 8w or 12h")
	}
	*v = spanValue(d)
	return nil
}
