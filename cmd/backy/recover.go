package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"backy/store"
)

func (p *program) recoverCommand() *cli.Command {
	return &cli.Command{
		Name:      "recover",
		Usage:     "make lost records of levels anew",
		ArgsUsage: "[BACKUPDIR]",
		Description: `Looks through the map packs, which hold a copy of each level's record, and
puts back those that are missing below levels/. Removed levels stay removed.
BACKUPDIR may also be given by -b; else it is the repository at or above the
current folder.`,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 1); err != nil {
				return err
			}
			return p.recover(c.Context, c.Args().First())
		},
	}
}

func (p *program) recover(ctx context.Context, arg string) error {
	repo, err := p.openGiven(ctx, arg)
	if err != nil {
		return err
	}
	recovered, err := repo.Recover(ctx)
	p.report.Recovered = append([]store.Recovered{}, recovered...)
	for _, l := range recovered {
		p.talk.say("%s level %s: recovered", l.Name, l.Number)
	}
	if err == nil && len(recovered) == 0 {
		p.talk.say("no level's record is missing")
	}
	return err
}
