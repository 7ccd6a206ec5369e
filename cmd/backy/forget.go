package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/store"
)

// forgetFlags are those of forget alone.
type forgetFlags struct {
	keep   keepValues
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
local time that have a level; protected levels stay. TIME is such as 12h,
30d, 8w, 6mo or 1y.

The newest level of a name always stays. So do levels whose times contradict
their numbers or the present, and no rule counts them. What the metadata of
an image ask to keep, as its newest level recorded them, stays as well; if
they are not understood, nothing of that name is removed.`,
		Flags: append(f.keep.flags(""),
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
			if err := f.keep.check(); err != nil {
				return err
			}
			if f.maxWait != 0 && !f.gc {
				return usagef("--max-wait goes with --gc only")
			}
			return p.forget(c.Context, f, c.Args().First())
		},
	}
}

// keepValues are the rules of a policy, as the flags give them.
type keepValues struct {
	engine.Keep
	less bool // metadata may have less kept
}

func (k *keepValues) flags(category string) []cli.Flag {
	rule := func(name, what string, n *int) cli.Flag {
		return &cli.GenericFlag{Name: name, Value: (*countValue)(n), Usage: "keep " + what, Category: category}
	}
	return []cli.Flag{
		rule("keep-last", "the newest `N`", &k.Last),
		rule("keep-hourly", "the newest of each of `N` hours", &k.Hourly),
		rule("keep-daily", "the newest of each of `N` days", &k.Daily),
		rule("keep-weekly", "the newest of each of `N` weeks, from Monday", &k.Weekly),
		rule("keep-monthly", "the newest of each of `N` months", &k.Monthly),
		rule("keep-yearly", "the newest of each of `N` years", &k.Yearly),
		&cli.GenericFlag{
			Name: "keep-within", Value: &spanValue{to: &k.Within, parse: engine.ParseSpan}, Category: category,
			Usage: "keep what is within `TIME` (30d) before the newest",
		},
		&cli.BoolFlag{
			Name: "metadata-may-keep-less", Destination: &k.less, DisableDefaultText: true, Category: category,
			Usage: "let image metadata replace these rules",
		},
	}
}

// check refuses a policy that keeps nothing, and any while the time zone is
// unknown: days would begin and end at the wrong time.
func (k *keepValues) check() error {
	if err := k.Validate(); err != nil {
		return usagef("%v", err)
	}
	return zoneError()
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
	var removing []store.Removing
	var failed []error
	for _, name := range names {
		forgotten, err := p.forgetName(ctx, repo, name, &f.keep, engine.ForgetOptions{DryRun: f.dryRun})
		if err != nil {
			failed = append(failed, p.maybeFull(err))
			continue
		}
		all = append(all, forgotten.Decisions...)
		removing = append(removing, store.Removing{Name: name, Levels: forgotten.Removed()})
	}
	p.report.Forget = append([]engine.Decision{}, all...)
	if err := p.print(forgetTable(all, f.dryRun)); err != nil {
		failed = append(failed, err)
	}
	if f.gc && len(failed) == 0 {
		return p.gcAfter(ctx, repo, gcFlags{dryRun: f.dryRun, maxWait: f.maxWait, removing: removing})
	}
	return errors.Join(failed...)
}

// forgetName applies a policy to a name, and warns of what it left alone.
func (p *program) forgetName(ctx context.Context, repo *store.Repository, name store.Name, k *keepValues, o engine.ForgetOptions) (engine.Forgotten, error) {
	t := p.talk.with("name", name)
	o.MetadataMayKeepLess, o.Warn = k.less, t.warn
	forgotten, err := engine.Forget(ctx, repo, name, k.Keep, o)
	for _, why := range forgotten.Unclear {
		if o.Rules != nil && slices.Contains(o.Rules.Unclear, why) {
			continue // told after the backup
		}
		t.warn("%s: %s; nothing of it is forgotten", name, why)
	}
	return forgotten, err
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
