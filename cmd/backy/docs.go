package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
)

// docsCommand is for packaging: it writes what a system's man and shells read,
// each from the command tree.
func (p *program) docsCommand() *cli.Command {
	return &cli.Command{
		Name:      "docs",
		Usage:     "write man pages and shell completions",
		ArgsUsage: "DIR",
		Description: `Writes backy.1, a page for each command and backy-ceph.7 to DIR, and the
completions of bash (backy.bash), zsh (_backy) and fish (backy.fish). The
pages bear the day of SOURCE_DATE_EPOCH (seconds since 1970), or today.`,
		Hidden: true,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1); err != nil {
				return err
			}
			files, err := documents(c.Context)
			if err != nil {
				return err
			}
			dir := c.Args().First()
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("making the folder for the documents: %w", err)
			}
			for name, text := range files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					return fmt.Errorf("writing a document: %w", err)
				}
			}
			return nil
		},
	}
}

// documents are the texts by their file names.
func documents(ctx context.Context) (map[string]string, error) {
	day, err := documentDay()
	if err != nil {
		return nil, err
	}
	tree := new(program).tree()
	files := map[string]string{
		"backy.bash": bashCompletion(tree),
		"_backy":     zshCompletion(tree),
		"backy.fish": fishCompletion(tree),
	}
	all := []string{""}
	for _, c := range tree.VisibleCommands() {
		all = append(all, c.Name)
	}
	for _, command := range all {
		help, err := helpOf(ctx, command)
		if err != nil {
			return nil, err
		}
		files[pageName(command)+".1"] = manPage(command, help, day, all)
	}
	files["backy-ceph.7"] = roffPage("backy-ceph", `7 %s "backy %s" "Miscellaneous"`, cephPage, day, []string{".BR backy (1)", ".BR backy\\-backup (1)"})
	return files, nil
}

func documentDay() (string, error) {
	day := time.Now()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return "", fmt.Errorf("SOURCE_DATE_EPOCH %q: not a number of seconds", epoch)
		}
		day = time.Unix(seconds, 0)
	}
	return day.UTC().Format(time.DateOnly), nil
}

// helpOf is the help of a command, or of backy where that is "".
func helpOf(ctx context.Context, command string) (string, error) {
	typed := []string{"help"}
	if command != "" {
		typed = append(typed, command)
	}
	var out bytes.Buffer
	p := &program{stdout: &out, typed: typed}
	if err := p.do(ctx); err != nil {
		return "", fmt.Errorf("reading the help of %q: %w", command, err)
	}
	return out.String(), nil
}
