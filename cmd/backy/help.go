package main

import (
	"github.com/urfave/cli/v2"
)

func (p *program) helpCommand() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Usage:     "show the help of backy or of a command",
		ArgsUsage: "[COMMAND]",
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 1); err != nil {
				return err
			}
			if c.NArg() == 0 {
				return cli.ShowAppHelp(c)
			}
			name := c.Args().First()
			if c.App.Command(name) == nil {
				hint := "backy help"
				if near := nearest(name, commandNames(c.App)); near != "" {
					hint = p.retyped(name, near)
				}
				return withHint(usagef("unknown command %q", name), hint)
			}
			return cli.ShowCommandHelp(c, name)
		},
	}
}
