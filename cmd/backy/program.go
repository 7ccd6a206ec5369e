package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// program is one run of backy: its streams, what the line said, and what is to
// be reported at its end.
type program struct {
	stdin  *os.File
	stdout io.Writer
	stderr *os.File
	typed  []string // after the program's name
	json   bool     // one document on stdout

	talk    talk
	common  commonFlags
	report  report
	metrics metrics
	closers []func() error

	connection connection // to the cluster, once there is one

	// lineEvery is how often a line tells of progress where there is no
	// terminal.
	lineEvery time.Duration
}

// commonFlags are those of all commands.
type commonFlags struct {
	backupDir string
	quiet     bool
	verbose   bool
	logFormat choiceValue
	ceph      cephFlags
}

// What --log-format takes.
const (
	logText, logJSON = "text", "json"

	logFormatEnv = "BACKY_LOG_FORMAT"
)

// cephFlags say how to reach a cluster.
type cephFlags struct {
	conf    string
	id      string
	name    string
	keyring string
	cluster string
	timeout time.Duration

	ignoreQoS tristate
	crashDir  string // for reports of crashes of Ceph's library; "": none
}

// run does what the line says and returns the exit code.
func run(ctx context.Context, typed []string, stdin, stdout, stderr *os.File) int {
	p := &program{stdin: stdin, stdout: stdout, stderr: stderr, typed: typed, lineEvery: 30 * time.Second}
	p.talk.w = stderr
	p.metrics.started = time.Now()
	tree, line, err := p.parse()
	if err != nil {
		return p.finish(err)
	}
	done := make(chan int, 1)
	go func() {
		err := p.carryOut(ctx, tree, line)
		var interrupted *interruptedError
		if err != nil && errors.As(context.Cause(ctx), &interrupted) {
			err = because(interrupted, err)
		}
		done <- p.finish(err)
	}()
	select {
	case code := <-done:
		return code
	case stuck := <-stuckAfter(ctx):
		return p.abandon(stuck)
	}
}

// because tells what came of an interruption beyond the run's end: the error
// that led to it may be about cleaning up.
func because(cause *interruptedError, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, error(cause)) {
		return cause
	}
	return fmt.Errorf("%w: %v", cause, err)
}

func (p *program) do(ctx context.Context) error {
	tree, line, err := p.parse()
	if err != nil {
		return err
	}
	return p.carryOut(ctx, tree, line)
}

// parse looks at the line, as far as it says how to report.
func (p *program) parse() (*cli.App, commandLine, error) {
	tree := p.tree()
	line, err := sortLine(tree, p.typed)
	p.json = line.json && !line.help
	p.talk.json = cmp.Or(line.log, os.Getenv(logFormatEnv)) == logJSON
	p.report.Command = line.command
	if line.help {
		err = nil
	}
	return tree, line, err
}

func (p *program) carryOut(ctx context.Context, tree *cli.App, line commandLine) (err error) {
	defer p.announceEnd(ctx)()
	defer func() { err = errors.Join(err, p.close()) }()
	err = tree.RunContext(ctx, line.canonical())
	if metricsErr := p.metrics.lookUp(ctx); metricsErr != nil {
		p.talk.warn("%v", metricsErr)
	}
	return err
}

// announceEnd says what happens when a signal comes, until it is stopped.
func (p *program) announceEnd(ctx context.Context) (stop func()) {
	said := make(chan struct{})
	unsaid := context.AfterFunc(ctx, func() {
		defer close(said)
		var interrupted *interruptedError
		if errors.As(context.Cause(ctx), &interrupted) {
			p.talk.say("%s: ending the run and cleaning up; another signal, after %s or more, ends it at once",
				interrupted.name(), secondsText(secondSignal.Seconds()))
		}
	})
	return func() {
		if !unsaid() {
			<-said
		}
	}
}

// atEnd arranges for what was opened to be closed, last first.
func (p *program) atEnd(close func() error) { p.closers = append(p.closers, close) }

func (p *program) close() error {
	var errs []error
	for _, c := range slices.Backward(p.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// finish prints the error, or the one JSON document, and chooses the exit code.
func (p *program) finish(err error) int {
	err = p.hintRecover(err)
	p.report.ExitCode = exitCode(p.report.Command, err)
	if metricsErr := p.metrics.write(&p.report); metricsErr != nil && err == nil && p.report.Command != "status" {
		err = metricsErr
	} else if metricsErr != nil {
		p.talk.warn("%v", metricsErr)
	}
	if p.unreported() {
		err = p.withFlag(err, "--crash-dir=DIR")
	}
	if p.json {
		p.report.set(err, p.talk.warned())
		if jsonErr := p.document(&p.report); err == nil {
			err = jsonErr
		}
	}
	if err != nil && !isA[*stateError](err) {
		if p.report.Command == "status" {
			p.unknown(err)
		}
		p.talk.with("exit_code", exitCode(p.report.Command, err)).fail(err)
	}
	return exitCode(p.report.Command, err)
}

// unknown is status' first line where there is no state to tell. fail tells the
// error, too.
func (p *program) unknown(err error) {
	text, _, _ := strings.Cut(errorText(err), "\n")
	_ = p.print("BACKY UNKNOWN - " + strings.ReplaceAll(text, "|", "/") + "\n")
}

// document prints the one document of --json.
func (p *program) document(r *report) error { return writeJSON(p.stdout, r) }

func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("making the JSON document: %w", err)
	}
	return printTo(w, jsonText(string(text))+"\n")
}

// print writes data for people to stdout; with --json the document takes its
// place.
func (p *program) print(text string) error {
	if p.json {
		return nil
	}
	return printTo(p.stdout, lines(text))
}

func printTo(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("writing to standard output: %w", err)
	}
	return nil
}

// wantArgs checks the number of arguments, and that none is empty. max < 0 stands for any number.
func wantArgs(c *cli.Context, least, most int) error {
	n := c.NArg()
	if n >= least && (most < 0 || n <= most) {
		if i := slices.Index(c.Args().Slice(), ""); i >= 0 {
			return usagef("%s: argument %d is empty: is a variable not set?", c.Command.Name, i+1)
		}
		return nil
	}
	count := fmt.Sprintf("%d arguments", n)
	switch n {
	case 0:
		count = "no arguments"
	case 1:
		count = "one argument"
	}
	return withHint(usagef("%s takes %s, not %s", c.Command.Name, arguments(c.Command), count),
		"backy "+c.Command.Name+" --help")
}

func arguments(c *cli.Command) string {
	if c.ArgsUsage == "" {
		return "no arguments"
	}
	return c.ArgsUsage
}
