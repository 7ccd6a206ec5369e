package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"backy/store"
)

func (p *program) initCommand() *cli.Command {
	var chunkSize sizeValue
	return &cli.Command{
		Name:      "init",
		Usage:     "make a repository",
		ArgsUsage: "[BACKUPDIR]",
		Description: `Makes BACKUPDIR (or -b, or the current folder) a repository, also with other
things in it. The first backup does so by itself where the folder is missing
or empty. The chunk size is fixed for good: smaller chunks store scattered
small writes in less space, larger ones take less work.`,
		Flags: []cli.Flag{
			&cli.GenericFlag{
				Name: "chunk-size", DefaultText: "64K", Value: &chunkSize,
				Usage: "a power of two from 16K to 4M: `SIZE`",
			},
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 1); err != nil {
				return err
			}
			if chunkSize.given && chunkSize.bytes == 0 {
				return usagef("chunk size 0: not a power of two from 16K to 4M")
			}
			return p.init(c.Context, c.Args().Slice(), store.Parameters{ChunkSize: chunkSize.bytes})
		},
	}
}

func (p *program) init(ctx context.Context, args []string, parameters store.Parameters) error {
	if err := parameters.Validate(); err != nil {
		return &usageError{err}
	}
	folder := p.common.backupDir
	if len(args) == 1 {
		if typed := folder != "" && folder != os.Getenv("BACKY_BACKUPDIR"); typed && folder != args[0] {
			return usagef("two folders: %s and -b %s", args[0], folder)
		}
		folder = args[0]
	}
	if folder == "" {
		folder = "."
	}
	at, err := locateDir(folder)
	if err != nil {
		return err
	}
	if at.exists {
		return withHint(fmt.Errorf("%s: there is a repository already", at.dir), shellLine([]string{"ls", at.dir}))
	}
	if above, err := repositoryAbove(at.dir); err != nil {
		return err
	} else if above != "" {
		return fmt.Errorf("%s lies inside the repository %s", at.dir, above)
	}
	_, err = p.create(ctx, at, parameters)
	return err
}
