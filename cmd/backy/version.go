package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "show the versions of backy and of the libraries it uses",
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0); err != nil {
				return err
			}
			v := versions()
			p.report.Version = &v
			ceph := "without librbd: no rbd: sources and targets"
			if v.Librbd != "" {
				ceph = "librbd " + v.Librbd + ", librados " + v.Librados
			}
			return p.print(fmt.Sprintf("backy %s\n%s, %s\n%s\n", v.Backy, v.Go, v.Platform, ceph))
		},
	}
}

// version is set by the build, from git.
var version string

func versions() versionReport {
	v := versionReport{Backy: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v.Backy == "" {
			v.Backy = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	v.Librbd, v.Librados = cephVersions()
	return v
}
