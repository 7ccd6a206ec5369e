package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links one path may lead through, as the kernel
// has it.
const maxLinks = 40

// Inside tells whether a path leads into a folder, to the folder itself, or to
// the block device that the folder's file system is on. The path need not
// exist: then it is where it would be made. Symbolic links and ".." are
// followed as the kernel does, and folders are known by device and inode, so
// that a folder above dir that is mounted a second time elsewhere is seen
// through. A mount of something below dir is not. Nothing is inside a folder
// that does not exist.
func Inside(path, dir string) (bool, error) {
	inside, err := isInside(path, dir)
	if err != nil {
		return false, fmt.Errorf("find out whether %s lies in %s: %w", path, dir, err)
	}
	return inside, nil
}

func isInside(path, dir string) (bool, error) {
	folder, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	real, err := resolve(path, maxLinks)
	if err != nil {
		return false, err
	}
	for at := real; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		case err != nil:
			return false, err
		case os.SameFile(info, folder), at == real && holds(info, folder):
			return true, nil
		}
		if at == "/" {
			return false, nil
		}
	}
}

// holds tells whether a block device has the file system that a folder is on.
func holds(device, folder fs.FileInfo) bool {
	if device.Mode().Type() != fs.ModeDevice {
		return false
	}
	d, okD := device.Sys().(*syscall.Stat_t)
	f, okF := folder.Sys().(*syscall.Stat_t)
	return okD && okF && d.Rdev == f.Dev
}

// resolve makes a path absolute and free of links. What does not exist of it
// keeps its name. The path is taken apart from the end and never cleaned
// before its links are known: link/.. is above where the link leads.
func resolve(path string, links int) (string, error) {
	if path == "" {
		return "", fs.ErrNotExist
	}
	if !filepath.IsAbs(path) {
		wd, err := os.Getwd()
		if err != nil {
			return "", err
		}
		path = wd + "/" + path
	}
	real, err := filepath.EvalSymlinks(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	path = strings.TrimRight(path, "/")
	cut := strings.LastIndexByte(path, '/')
	name := path[cut+1:]
	parent, err := resolve(path[:cut+1], links)
	if err != nil {
		return "", err
	}
	full := filepath.Join(parent, name)
	if name == ".." || name == "." {
		return full, nil
	}
	link, err := os.Readlink(full)
	if err != nil {
		return full, nil // it does not exist, and is no link that leads nowhere
	}
	if links == 0 {
		return "", syscall.ELOOP
	}
	if !filepath.IsAbs(link) {
		link = parent + "/" + link
	}
	return resolve(link, links-1)
}
