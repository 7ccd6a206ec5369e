package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/store"
)

func (p *program) duCommand() *cli.Command {
	return &cli.Command{
		Name:      "du",
		Usage:     "show what names and levels take",
		ArgsUsage: "[BACKUPNAME...]",
		Description: `Shows what is stored for each name, or for each level of the names given.
ALONE is what nothing else needs: what gc gives back if just that goes, in
packs of which little else is needed at once. SHARED is what several levels
of the name need, and no other name. Below stand what several names need,
what no level needs any more, and the total. Without a name: all names of the
repository at or above the current folder, or of -b.`,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, -1); err != nil {
				return err
			}
			return p.du(c.Context, c.Args().Slice())
		},
	}
}

func (p *program) du(ctx context.Context, args []string) error {
	at, err := locateNearest(p.common.backupDir)
	if len(args) > 0 {
		at, err = locate(p.common.backupDir, args[0])
	}
	if err != nil {
		return err
	}
	var wanted []store.Name
	for _, arg := range args {
		one, err := locate(p.common.backupDir, arg)
		if err != nil {
			return err
		}
		if one.dir != at.dir {
			return usagef("%s and %s are in two repositories, %s and %s", args[0], arg, at.dir, one.dir)
		}
		if one.name != "" {
			wanted = append(wanted, one.name)
		}
	}
	repo, err := p.open(ctx, at)
	if err != nil {
		return err
	}
	var done store.GCProgress
	var shown engine.Progress
	var usage *store.Usage
	err = p.watchGC("du", &done, &shown, func() (err error) {
		usage, err = repo.Usage(ctx, &done)
		return err
	})
	if usage == nil {
		return err
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(usage.Names, func(n store.NameUsage) bool { return n.Name == name }) {
			return p.noSuchName(ctx, repo, place{dir: at.dir, name: name}, string(name))
		}
	}
	if len(wanted) > 0 {
		usage.Names = slices.DeleteFunc(usage.Names, func(n store.NameUsage) bool { return !slices.Contains(wanted, n.Name) })
	}
	p.report.DU = usage
	if printErr := p.print(usageTable(usage, len(wanted) > 0)); printErr != nil {
		return printErr
	}
	if err != nil {
		return fmt.Errorf("not all could be read, and what is missing is not counted: %w", err)
	}
	return nil
}

func usageTable(u *store.Usage, levels bool) string {
	columns := []column{{"ALONE", true}, {"SHARED", true}, {"LEVEL", true}, {"NAME", false}}
	var rows [][]string
	for _, n := range u.Names {
		all := fmt.Sprintf("all %d", len(n.Levels))
		rows = append(rows, []string{shortBytes(n.Alone), shortBytes(n.Shared), all, string(n.Name)})
		if !levels {
			continue
		}
		for _, l := range n.Levels {
			rows = append(rows, []string{shortBytes(l.Alone), "", l.Number.String(), string(n.Name)})
		}
	}
	rows = append(rows,
		[]string{"", shortBytes(u.Shared), "", "(several names)"},
		[]string{shortBytes(u.Unused), "", "", "(no level)"},
		[]string{shortBytes(u.Total), "", "", "(total)"})
	return table(columns, rows, 0)
}
