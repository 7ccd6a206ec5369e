package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// pickFlags say which of a pool's images are meant, and what they are called in
// the repository.
type pickFlags struct {
	include, exclude cli.StringSlice
	names            string
}

func (f *pickFlags) flags(category string) []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{
			Name: "include", Category: category, Destination: &f.include,
			Usage: "only images that `GLOB` matches; may be repeated",
		},
		&cli.StringSliceFlag{
			Name: "exclude", Category: category, Destination: &f.exclude,
			Usage: "no images that `GLOB` matches; may be repeated",
		},
		&cli.StringFlag{
			Name: "name-template", Category: category, Destination: &f.names,
			Usage: "backup names, as in {{.Pool}}-{{.Image}}: `TEXT`",
		},
	}
}

// chosen returns what tells whether --include and --exclude leave an image in. A
// pattern without a slash is about the image's own name, one with a slash about
// POOL/[NAMESPACE/]IMAGE.
func (f *pickFlags) chosen() (func(imagePlace) bool, error) {
	type match func(imagePlace) bool
	compile := func(patterns []string) (list []match, err error) {
		for _, pattern := range patterns {
			glob, err := compilePattern(pattern)
			if err != nil {
				return nil, err
			}
			list = append(list, func(i imagePlace) bool {
				if !strings.Contains(pattern, "/") {
					return glob(i.Image)
				}
				return glob(strings.Join(slices.DeleteFunc([]string{i.Pool, i.Namespace, i.Image}, func(s string) bool { return s == "" }), "/"))
			})
		}
		return list, nil
	}
	include, err := compile(f.include.Value())
	if err != nil {
		return nil, err
	}
	exclude, err := compile(f.exclude.Value())
	if err != nil {
		return nil, err
	}
	return func(i imagePlace) bool {
		matches := func(m match) bool { return m(i) }
		return (len(include) == 0 || slices.ContainsFunc(include, matches)) && !slices.ContainsFunc(exclude, matches)
	}, nil
}
