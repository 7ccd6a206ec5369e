package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"backy/engine"
	"backy/engine/local"
	"backy/hints"
	"backy/store/pending"
)

// sourceKind tells the kinds of SOURCE and TARGET by their spelling.
type sourceKind int

const (
	kindFile sourceKind = iota // or a device
	kindRBD
	kindPipe
)

// rbdScheme is what the name of an image begins with. A file of such a name is
// ./rbd:…
const rbdScheme = "rbd:"

func kindOf(arg string) sourceKind {
	switch {
	case arg == "-":
		return kindPipe
	case strings.HasPrefix(arg, rbdScheme):
		return kindRBD
	}
	return kindFile
}

// isFIFO tells a path that leads to a pipe.
func isFIFO(path string) bool {
	defer pending.Begin("look at", "", path).End()
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() == fs.ModeNamedPipe
}

// openSource makes the source of a backup, and finds out what can be wrong with
// it before a repository is made or touched.
func (p *program) openSource(ctx context.Context, f backupFlags, arg string, at place) (engine.Source, error) {
	pipe := local.PipeOptions{Size: f.size.bytes, HasSize: f.size.given}
	switch kind := kindOf(arg); {
	case kind == kindRBD:
		return p.rbdSource(ctx, arg, f, !at.exists)
	case f.fromCommand != "":
		stderr := &relay{t: &p.talk}
		p.atEnd(stderr.Close)
		pipe.Stderr = stderr
		return local.NewCommand(f.fromCommand, pipe), nil
	case kind == kindPipe:
		return local.NewPipe(p.stdin, pipe), nil
	}
	if err := outside(arg, at.dir); err != nil {
		return nil, err
	}
	extents, err := p.readHints(f.hints)
	if err != nil {
		return nil, err
	}
	if !isFIFO(arg) {
		if err := checkFile(arg, extents); err != nil {
			return nil, err
		}
	}
	return local.NewSource(arg, local.SourceOptions{Hints: extents, HasHints: f.hints != "", Pipe: pipe}), nil
}

// checkFile makes sure that a file or a device can be read and that the hints
// lie inside it.
func checkFile(path string, extents []hints.Extent) error {
	view, closer, err := local.OpenView(path)
	if err != nil {
		return err
	}
	if err := closer.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	if err := hints.Check(extents, view.Size); err != nil {
		return fmt.Errorf("the hints do not fit %s: %w", path, err)
	}
	return nil
}

// openView opens what a deep scrub compares with.
func (p *program) openView(ctx context.Context, arg string, at place) (*engine.View, error) {
	if kindOf(arg) == kindRBD {
		return p.rbdView(ctx, arg)
	}
	if err := outside(arg, at.dir); err != nil {
		return nil, err
	}
	view, closer, err := local.OpenView(arg)
	if err != nil {
		return nil, err
	}
	p.atEnd(closer.Close)
	return &view, nil
}

// openTarget makes what a restore writes to.
func (p *program) openTarget(ctx context.Context, arg string, at place, f targetFlags) (engine.Target, error) {
	if kindOf(arg) == kindRBD {
		return p.rbdTarget(ctx, arg, f)
	}
	if err := outside(arg, at.dir); err != nil {
		return nil, err
	}
	if err := inNoRepository(arg); err != nil {
		return nil, err
	}
	if beneath, err := local.Beneath(arg, at.dir); err != nil {
		return nil, err
	} else if beneath {
		return nil, fmt.Errorf("%s: the repository %s lies on this device", arg, at.dir)
	}
	return local.NewTarget(arg, local.TargetOptions{Force: f.force, Repository: at.dir, Warn: p.talk.warn}), nil
}

// needsForce tells the errors that -f gets over.
func needsForce(err error) bool { return errors.Is(err, local.ErrInUse) || imageExists(err) }

// outside refuses what lies inside the repository, or holds it.
func outside(arg, repository string) error {
	inside, err := local.Inside(arg, repository)
	if err != nil {
		return err
	}
	if inside {
		return fmt.Errorf("%s: lies inside the repository %s, or is the device that it is on", arg, repository)
	}
	return nil
}

// inNoRepository refuses to write where any repository keeps its objects.
func inNoRepository(path string) error {
	dir, err := local.RepositoryAt(path)
	if err == nil && dir != "" {
		err = fmt.Errorf("%s: lies inside the repository %s", path, dir)
	}
	return err
}

// maybePipe hints at "-" for a file that can be read from front to back only.
func (p *program) maybePipe(err error, f backupFlags, arg string) error {
	if !errors.Is(err, local.ErrSize) || f.hints != "" {
		return err
	}
	return withHint(err, p.retyped(arg, "-")+" <"+shellWord(arg))
}

// maybeImage hints at rbd: where a missing file's name looks like an image's.
func (p *program) maybeImage(err error, arg string) error {
	if kindOf(arg) != kindFile || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, statErr := os.Lstat(arg); statErr == nil {
		return err
	}
	spec := strings.TrimPrefix(arg, "/")
	if n := strings.Count(spec, "/"); n < 1 || n > 2 || strings.HasPrefix(spec, ".") || strings.HasPrefix(arg, "/dev/") {
		return err
	}
	return withHint(err, p.retyped(arg, rbdScheme+spec))
}
