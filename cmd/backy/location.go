package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"backy/store"
	"backy/store/pending"
)

// place is where a command works: a repository's folder and a backup name in
// it.
type place struct {
	dir    string // absolute
	name   store.Name
	exists bool   // dir is a repository
	why    string // where not: why the first backup may not make it one; "" if it may
}

// locate finds the repository and the name that a command's BACKUPNAME stands
// for. With a backupDir that is the repository, and arg a name in it. Without,
// arg is a path: the repository is the nearest folder at or above it that is
// one, else the parent folder, and the name is the rest of the path. The name
// is "" where arg is a repository or another folder itself.
func locate(backupDir, arg string) (place, error) {
	if kindOf(arg) != kindFile {
		return place{}, usagef("%s is an image or a pipe, not a backup name", arg)
	}
	if backupDir != "" {
		p, err := locateDir(backupDir)
		if err != nil {
			return place{}, err
		}
		if filepath.IsAbs(arg) {
			return place{}, usagef("backup name %q is absolute: with a BACKUPDIR, names are relative to it", arg)
		}
		return p.named(arg)
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return place{}, fmt.Errorf("finding %s: %w", arg, err)
	}
	if arg == "" {
		return place{}, usagef("the backup name is empty")
	}
	if dir, err := repositoryAbove(path); err != nil {
		return place{}, err
	} else if dir == path {
		return place{dir: dir, exists: true}, nil
	} else if dir != "" {
		rest, err := filepath.Rel(dir, path)
		if err != nil {
			return place{}, fmt.Errorf("finding %s in %s: %w", path, dir, err)
		}
		return place{dir: dir, exists: true}.named(filepath.ToSlash(rest))
	}
	if isFolder(path) {
		return place{dir: path}, nil
	}
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	why, err := vacant(dir)
	if err != nil {
		return place{}, err
	}
	return place{dir: dir, why: why}.named(name)
}

func isFolder(path string) bool {
	defer pending.Begin("look at", "", path).End()
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (p place) named(name string) (place, error) {
	n, err := store.ParseName(name)
	if err != nil {
		return place{}, &usageError{err}
	}
	p.name = n
	return p, nil
}

// locateDir looks at the folder that a BACKUPDIR names.
func locateDir(backupDir string) (place, error) {
	dir, err := filepath.Abs(backupDir)
	if err != nil {
		return place{}, fmt.Errorf("finding %s: %w", backupDir, err)
	}
	above, err := repositoryAbove(dir)
	if err != nil {
		return place{}, err
	}
	switch above {
	case dir:
		return place{dir: dir, exists: true}, nil
	case "":
		why, err := vacant(dir)
		return place{dir: dir, why: why}, err
	}
	return place{dir: dir, why: "it lies inside the repository " + above}, nil
}

// locateNearest finds the repository of a command without a name: backupDir or
// else the nearest at or above the current folder.
func locateNearest(backupDir string) (place, error) {
	if backupDir != "" {
		return locateDir(backupDir)
	}
	dir, err := os.Getwd()
	if err != nil {
		return place{}, fmt.Errorf("finding the current folder: %w", err)
	}
	above, err := repositoryAbove(dir)
	if err != nil {
		return place{}, err
	}
	if above == "" {
		return place{dir: dir, why: "no folder above it is one either"}, nil
	}
	return place{dir: above, exists: true}, nil
}

// marker is the file that makes a folder a repository.
const marker = store.ConfigName

// repositoryAbove is the nearest folder at or above path that is a repository,
// or "". A folder that cannot be looked into is an error: it might be one.
func repositoryAbove(path string) (string, error) {
	defer pending.Begin("look for a repository at", "", path).End()
	for dir := path; ; dir = filepath.Dir(dir) {
		_, err := os.Lstat(filepath.Join(dir, marker))
		switch {
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return "", fmt.Errorf("looking for a repository: %w", err)
		case dir == filepath.Dir(dir):
			return "", nil
		}
	}
}

// vacant tells why a folder may not become a repository without being asked
// for: it has other things in it. A folder that does not exist or is empty may;
// so may one that holds what comes with a new file system, and what is left
// where the making of a repository was cut short.
func vacant(dir string) (why string, err error) {
	entries, err := readNames(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, syscall.ENOTDIR):
		return "", fmt.Errorf("%s: not a folder, so there is no repository in it", dir)
	case err != nil:
		return "", fmt.Errorf("looking for a repository: %w", err)
	}
	for _, name := range entries {
		harmless := name == "lost+found" || unfinished(name)
		if name == "work" {
			inside, err := readNames(filepath.Join(dir, name))
			harmless = err == nil && !slices.ContainsFunc(inside, func(n string) bool { return !unfinished(n) })
		}
		if !harmless {
			return "it has other things in it", nil
		}
	}
	return "", nil
}

// unfinished tells the files that making a repository puts before its marker.
func unfinished(name string) bool {
	return strings.HasPrefix(name, "probe.") || strings.HasPrefix(name, ".tmp-")
}

// readNames lists a folder, of a large one only the beginning.
func readNames(dir string) ([]string, error) {
	defer pending.Begin("list", "", dir).End()
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(100)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}
