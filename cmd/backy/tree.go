package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// tree is the command tree. It is built anew for each run, since its flags
// write into p.
func (p *program) tree() *cli.App {
	cli.FlagStringer = flagLine
	app := &cli.App{
		Name:      "backy",
		HelpName:  "backy",
		Usage:     "block-based backup of RBD images, devices, files and pipes",
		UsageText: "backy [-v] [-b BACKUPDIR] COMMAND ...\n\nOptions may stand anywhere on the line, also behind the arguments.",
		Flags:     p.commonFlags(),
		Commands: []*cli.Command{
			p.backupCommand(),
			p.restoreCommand(),
			p.scrubCommand(),
			p.statusCommand(),
			p.snapshotsCommand(),
			p.lsCommand(),
			p.duCommand(),
			p.rmCommand(),
			p.forgetCommand(),
			p.protectCommand(),
			p.unprotectCommand(),
			p.gcCommand(),
			p.recoverCommand(),
			p.initCommand(),
			p.versionCommand(),
			p.helpCommand(),
			p.docsCommand(),
		},
		Writer:                    p.stdout,
		ErrWriter:                 p.stderr,
		HideVersion:               true, // its -v is not ours
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		CustomAppHelpTemplate:     cli.AppHelpTemplate + exampleHelp("") + exitHelp(exits),
		ExitErrHandler:            func(*cli.Context, error) {}, // finish does it
		OnUsageError:              onUsageError,
	}
	for _, c := range app.Commands {
		c.Flags = append(c.Flags, p.commonFlags()...)
		c.HideHelpCommand = true // else "ls help" would not list a name
		c.CustomHelpTemplate = cli.CommandHelpTemplate + exampleHelp(c.Name) + exitHelp(exitsOf(c.Name))
		c.OnUsageError = onUsageError
		c.Before = p.applyCommon
	}
	return app
}

// onUsageError gets values that a flag does not take: all else that can be
// wrong with a line, sortLine has found before.
func onUsageError(c *cli.Context, err error, _ bool) error {
	text := strings.Replace(err.Error(), "for flag -", "for flag --", 1)
	for _, f := range c.Command.Flags {
		if f, ok := f.(*cli.GenericFlag); ok {
			if v, ok := f.Value.(interface{ hint() string }); ok && v.hint() != "" {
				return withHint(usagef("%s: %s", c.Command.Name, text), v.hint())
			}
		}
	}
	return withHint(usagef("%s: %s", c.Command.Name, text), "backy "+c.Command.Name+" --help")
}

// timeless are the commands that have nothing to do with times of day.
var timeless = map[string]bool{"init": true, "version": true, "help": true, "docs": true}

// applyCommon puts the common flags into effect.
func (p *program) applyCommon(c *cli.Context) error {
	if p.common.quiet && p.common.verbose {
		return usagef("--quiet and --verbose exclude each other")
	}
	if p.common.ceph.id != "" && p.common.ceph.name != "" {
		return usagef("--id and --name exclude each other: they name the same user")
	}
	p.talk.set(p.common.quiet, p.common.verbose)
	if refused := c.Command.Name == "forget" || c.Bool("forget"); zoneProblem != nil && !refused && !timeless[c.Command.Name] {
		p.talk.warn("%v: times are shown as UTC", zoneProblem)
	}
	err := p.metrics.checkFile()
	if err != nil {
		p.metrics.file = "" // nor is it written when the run ends
	}
	return err
}

func (p *program) commonFlags() []cli.Flag {
	const common, ceph = "Common options", "Ceph options"
	p.common.ceph.timeout = defaultCephTimeout
	p.common.logFormat = choiceValue{words: []string{logText, logJSON}}
	return []cli.Flag{
		&cli.StringFlag{
			Name: "backupdir", Aliases: []string{"b"}, Category: common, EnvVars: []string{"BACKY_BACKUPDIR"},
			Usage: "the repository `BACKUPDIR`", Destination: &p.common.backupDir,
		},
		&cli.BoolFlag{
			Name: "verbose", Aliases: []string{"v"}, Category: common, DisableDefaultText: true,
			Usage: "say more", Destination: &p.common.verbose,
		},
		&cli.BoolFlag{
			Name: "quiet", Aliases: []string{"q"}, Category: common, DisableDefaultText: true,
			Usage: "say nothing but warnings and errors", Destination: &p.common.quiet,
		},
		&cli.BoolFlag{
			Name: "json", Category: common, DisableDefaultText: true,
			Usage: "print one JSON document on stdout", // read by sortLine, for usage errors too
		},
		&cli.GenericFlag{
			Name: "log-format", Category: common, EnvVars: []string{logFormatEnv}, Value: &p.common.logFormat,
			Usage: "stderr as text or json: `HOW`", // read by sortLine, for usage errors too
		},
		&cli.StringFlag{
			Name: "ceph-conf", Category: ceph, // librados reads CEPH_CONF, and CEPH_ARGS goes before it
			Usage: "the cluster's configuration `FILE` [$CEPH_CONF]", Destination: &p.common.ceph.conf,
		},
		&cli.StringFlag{
			Name: "id", Category: ceph,
			Usage: "user `ID`, without \"client.\"", Destination: &p.common.ceph.id,
		},
		&cli.StringFlag{
			Name: "name", Category: ceph,
			Usage: "user `NAME`, such as client.admin", Destination: &p.common.ceph.name,
		},
		&cli.StringFlag{
			Name: "keyring", Category: ceph,
			Usage: "the user's keyring `FILE`", Destination: &p.common.ceph.keyring,
		},
		&cli.StringFlag{
			Name: "cluster", Category: ceph,
			Usage: "the cluster's `NAME`", DefaultText: "ceph", Destination: &p.common.ceph.cluster,
		},
		&cli.GenericFlag{
			Name: "ceph-timeout", Category: ceph,
			Usage: "give up after `TIME` without progress", Value: (*durationValue)(&p.common.ceph.timeout),
		},
		&cli.GenericFlag{
			Name: "ignore-qos", Category: ceph, EnvVars: []string{"BACKY_IGNORE_QOS"},
			Usage: "exceed all rbd_qos_* (=false: none)", Value: &p.common.ceph.ignoreQoS,
		},
		&cli.StringFlag{
			Name: "crash-dir", Category: ceph, EnvVars: []string{"BACKY_CRASH_DIR"},
			Usage: "report a crash of librbd in `DIR`", Destination: &p.common.ceph.crashDir,
		},
	}
}

// flagLine is a flag's line in the help: short names first.
func flagLine(f cli.Flag) string {
	df, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	var short, long []string
	for _, n := range f.Names() {
		if len(n) == 1 {
			short = append(short, "-"+n)
		} else {
			long = append(long, "--"+n)
		}
	}
	names := strings.Join(append(short, long...), ", ")
	usage := df.GetUsage()
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		value, after, _ := strings.Cut(rest, "`")
		names += " " + value
		usage = before + value + after
	}
	if text := df.GetDefaultText(); text != "" && text != "0" && df.TakesValue() {
		usage += fmt.Sprintf(" (default: %s)", text)
	}
	for _, env := range df.GetEnvVars() {
		usage += " [$" + env + "]"
	}
	return names + "\t" + usage
}
