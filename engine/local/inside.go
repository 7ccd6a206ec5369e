package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"backy/store"
	"backy/store/pending"
)

// maxLinks is how many symbolic links one path may lead through, as the kernel
// has it.
const maxLinks = 40

// Inside reports whether a path leads into a repository's folder, to the folder
// itself, or to the block device that the folder's file system is on. The path
// need not exist: then it is where it would be made. Symbolic links and ".." are
// followed as the kernel does, and folders are known by device and inode, so
// that a folder above dir, or one of the repository's own, is seen through that
// is mounted a second time elsewhere. What a repository's folder is a link to is
// inside, too. Nothing is inside a folder that does not exist.
func Inside(path, dir string) (bool, error) {
	defer pending.Begin("look at", "", path).End()
	inside, err := isInside(path, dir)
	if err != nil {
		return false, fmt.Errorf("find out whether %s lies in %s: %w", path, dir, err)
	}
	return inside, nil
}

func isInside(path, dir string) (bool, error) {
	folders, err := foldersOf(dir)
	if len(folders) == 0 || err != nil {
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
		case slices.ContainsFunc(folders, func(f fs.FileInfo) bool { return os.SameFile(info, f) }):
			return true, nil
		case at == real && slices.ContainsFunc(folders, func(f fs.FileInfo) bool { return isOn(info, f) }):
			return true, nil
		}
		if at == "/" {
			return false, nil
		}
	}
}

// foldersOf are a repository's folder, if it exists, and those in it.
func foldersOf(dir string) (folders []fs.FileInfo, err error) {
	for _, name := range append([]string{"."}, store.Folders()...) {
		info, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			folders = append(folders, info)
		}
	}
	return folders, nil
}

// isOn reports whether a block device has the file system that a folder is on.
func isOn(device, folder fs.FileInfo) bool {
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
