package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"backy/store"
)

func (p *program) recoverCommand() *cli.Command {
	var abandon bool
	return &cli.Command{
		Name:      "recover",
		Usage:     "put lost records of levels back",
		ArgsUsage: "[BACKUPDIR]",
		Description: `Puts records back that are missing or damaged below levels/. A copy of
each lies in the map packs. Removed levels stay removed. A removal that is
damaged, or that is another level's, is deleted. While a record is missing,
gc deletes nothing. What cannot be recovered, --abandon gives up for good,
so that gc can go on. If a gc is running, recover ends with exit code 5,
and the other way round. BACKUPDIR may also be given by -b; else it is the
repository at or above the current folder.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{
				Name: "abandon", DisableDefaultText: true, Destination: &abandon,
				Usage: "recover what can be recovered, and give up the rest for good",
			},
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 1); err != nil {
				return err
			}
			return p.recover(c.Context, c.Args().First(), abandon)
		},
	}
}

// recoverLine is the command that puts lost records back.
func (p *program) recoverLine(flags ...string) string {
	return shellLine(append([]string{"recover"}, append(flags, p.report.Repository.Path)...))
}

// hintRecover adds to an error that recover may help.
func (p *program) hintRecover(err error) error {
	if (isA[*store.LostError](err) || isA[*store.BadRecordError](err)) && p.report.Repository != nil {
		return withHint(err, p.recoverLine())
	}
	return err
}

// recoveredDamagedError tells of levels that were put back and are not whole.
type recoveredDamagedError struct{ levels int64 }

func (e *recoveredDamagedError) Error() string {
	return fmt.Sprintf("damaged: of %s that came back, chunks are missing", count(e.levels, "level"))
}

func (p *program) recover(ctx context.Context, arg string, abandon bool) error {
	repo, err := p.openGiven(ctx, arg)
	if err != nil {
		return err
	}
	removals, err := repo.BadRemovals(ctx)
	if err != nil {
		return err
	}
	recovered, err := repo.Recover(ctx)
	var lost *store.UnrecoverableError
	if err == nil || errors.As(err, &lost) {
		for _, b := range removals {
			p.talk.with("name", b.Name, "level_number", b.Number).say("%v: deleted", b.Err)
		}
	}
	p.report.Recovered = append([]store.Recovered{}, recovered...)
	damaged := &recoveredDamagedError{}
	for _, l := range recovered {
		how := "recovered"
		if l.Damaged > 0 {
			damaged.levels++
			how += fmt.Sprintf(", but %s of it cannot be read", count(l.Damaged, "chunk"))
		}
		p.talk.with("name", l.Name, "level_number", l.Number).say("%s level %s: %s", l.Name, l.Number, how)
		if l.Outdated {
			p.talk.with("name", l.Name, "level_number", l.Number).warn(
				"%s level %s, of %s, is the newest level now, and older than others that came before it was recovered: back %s up now",
				l.Name, l.Number, timeText(l.Time), l.Name)
		}
		if n := len(l.Absent); n > 0 {
			p.talk.say("%s: no trace is left of %s below level %s, so they count as removed", l.Name, count(int64(n), "level"), l.Number)
		}
	}
	if err == nil && len(recovered)+len(removals) == 0 {
		p.talk.say("no level's record is missing or damaged")
	}
	if lost != nil {
		if !abandon {
			return withHint(err, p.recoverLine("--abandon"))
		}
		err = p.giveUp(ctx, repo)
	}
	if err == nil && damaged.levels > 0 {
		err = damaged
	}
	return err
}

// giveUp gives up what cannot be recovered.
func (p *program) giveUp(ctx context.Context, repo *store.Repository) error {
	given, err := repo.Abandon(ctx)
	p.report.Abandoned = append([]store.LostLevel{}, given...)
	for _, l := range given {
		p.talk.with("name", l.Name, "level_number", l.Number).say("%s: given up", l)
	}
	if err == nil && len(given) == 0 {
		p.talk.say("runs whose map packs cannot be read: given up")
	}
	return err
}
