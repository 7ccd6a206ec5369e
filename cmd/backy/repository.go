package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"backy/engine"
	"backy/store"
	"backy/store/dir"
)

// cacheDir is the folder for what can be had again at any time; "" where the
// user has none, which is no error: a timer's or container's environment may
// lack a home.
func cacheDir() string {
	if d := os.Getenv("BACKY_CACHEDIR"); d != "" {
		return d
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(d, "backy")
}

// open opens the repository of a place.
func (p *program) open(ctx context.Context, at place) (*store.Repository, error) {
	p.metrics.folder = at.dir
	if !at.exists {
		if p.common.backupDir == "" {
			return nil, fmt.Errorf("%s: %w, nor is a folder above it", at.dir, store.ErrNotRepository)
		}
		return nil, fmt.Errorf("%s: %w", at.dir, store.ErrNotRepository)
	}
	backend, err := dir.Open(at.dir)
	if err != nil {
		return nil, fmt.Errorf("opening the repository: %w", err)
	}
	p.atEnd(backend.Close)
	return p.openIn(ctx, at, backend, false)
}

func (p *program) openIn(ctx context.Context, at place, backend *dir.Dir, created bool) (*store.Repository, error) {
	repo, err := store.Open(ctx, backend, cacheDir())
	if err != nil {
		return nil, fmt.Errorf("opening the repository %s: %w", at.dir, err)
	}
	p.atEnd(repo.Close)
	repo.OnWait(func(w store.Wait) {
		p.talk.with("name", w.Name).say("%s: waiting until %s to see whether another run goes on: %s", w.Name, w.Until.Local().Format(time.TimeOnly), w.Who)
	})
	p.report.Repository = &repositoryReport{Path: at.dir, ID: repo.ID, ChunkSize: repo.ChunkSize, Created: created}
	p.report.Name = at.name
	p.talk.detail("repository %s, id %s, chunks of %s", at.dir, repo.ID, bytesText(repo.ChunkSize))
	return repo, nil
}

// openOrCreate opens the repository of a place, or makes it one where it is
// missing or empty.
func (p *program) openOrCreate(ctx context.Context, at place) (*store.Repository, error) {
	if at.exists {
		return p.open(ctx, at)
	}
	if err := at.refusal(); err != nil {
		return nil, err
	}
	repo, err := p.create(ctx, at, store.Parameters{})
	if errors.Is(err, store.ErrRepositoryExists) { // another first backup was quicker
		at.exists = true
		return p.open(ctx, at)
	}
	return repo, err
}

// refusal tells why the first backup may not make a place a repository.
func (at place) refusal() error {
	if at.exists || at.why == "" {
		return nil
	}
	return withHint(fmt.Errorf("%s: %w, and becomes one only when asked for: %s", at.dir, store.ErrNotRepository, at.why),
		shellLine([]string{"init", at.dir}))
}

func (p *program) create(ctx context.Context, at place, parameters store.Parameters) (*store.Repository, error) {
	backend, err := dir.Create(at.dir)
	if err != nil {
		return nil, fmt.Errorf("making a repository: %w", err)
	}
	p.atEnd(backend.Close)
	made, err := store.Init(ctx, backend, parameters)
	if err != nil {
		return nil, fmt.Errorf("making a repository in %s: %w", at.dir, err)
	}
	if err := made.Close(); err != nil {
		return nil, fmt.Errorf("making a repository in %s: %w", at.dir, err)
	}
	p.talk.say("made a new repository in %s", at.dir)
	return p.openIn(ctx, at, backend, true)
}

// named opens the repository of a command that reads BACKUPNAME, and lists the
// name's levels: at least one, or one that cannot be read.
func (p *program) named(ctx context.Context, backupName string) (*store.Repository, place, *levels, error) {
	at, err := locate(p.common.backupDir, backupName)
	if err != nil {
		return nil, at, nil, err
	}
	if at.exists && at.name == "" {
		return nil, at, nil, withHint(usagef("%s is a repository: the backup's name is missing", at.dir),
			shellLine([]string{"ls", at.dir}))
	}
	repo, err := p.open(ctx, at)
	if err != nil {
		return nil, at, nil, err
	}
	list, err := levelsOf(ctx, repo, at.name)
	if err != nil {
		return nil, at, nil, err
	}
	if len(list.good)+len(list.bad) == 0 {
		return nil, at, nil, p.noSuchName(ctx, repo, at, backupName)
	}
	return repo, at, list, nil
}

// pick picks a level and warns of those that cannot be read.
func (p *program) pick(s selector, l *levels) (store.Level, error) {
	level, err := s.pick(l)
	if err != nil {
		return level, err
	}
	for _, b := range l.bad {
		p.talk.warn("%s level %s cannot be read and is passed over: %v", l.name, b.Number, b.Err)
	}
	if !s.before.IsZero() {
		for _, text := range engine.Date(l.good, time.Now()).Sentences() {
			p.talk.warn("%s %s; if that is what you look for, name it by its number", l.name, text)
		}
	}
	return level, nil
}

func levelsOf(ctx context.Context, repo *store.Repository, name store.Name) (*levels, error) {
	h, err := repo.History(ctx, name)
	if err != nil {
		return nil, err
	}
	return &levels{name: name, good: h.Levels, bad: h.Bad}, nil
}

// noSuchName is the error for a name without levels, with the nearest that has
// some. typed is how it was named.
func (p *program) noSuchName(ctx context.Context, repo *store.Repository, at place, typed string) error {
	err := fmt.Errorf("%s: no backup of this name in %s", at.name, at.dir)
	names, listErr := repo.Names(ctx)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	known := make([]string, len(names))
	for i, n := range names {
		known[i] = string(n)
	}
	hint := shellLine([]string{"ls", at.dir})
	if p.common.backupDir != "" {
		hint = shellLine([]string{"ls", "-b", at.dir})
	}
	if near := nearest(string(at.name), known); near != "" {
		if p.common.backupDir == "" {
			near = filepath.Join(at.dir, filepath.FromSlash(near))
		}
		hint = p.retyped(typed, near)
	}
	return withHint(err, hint)
}

// retyped is the command line as typed, with one argument replaced.
func (p *program) retyped(argument, replacement string) string {
	line := slices.Clone(p.typed)
	if i := slices.Index(line, argument); i >= 0 {
		line[i] = replacement
	}
	return shellLine(line)
}
