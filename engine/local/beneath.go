package local

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Beneath reports whether a path is a block device that a repository lies on, at
// whatever depth, or one that is made of a file in it: who writes to such a device
// destroys the repository.
func Beneath(path, dir string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != fs.ModeDevice {
		return false, nil // what cannot be looked at cannot be opened either
	}
	device, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false, nil
	}
	folders, err := foldersOf(dir)
	if err != nil {
		return false, fmt.Errorf("find out what %s lies on: %w", dir, err)
	}
	below := beneath{}
	for _, folder := range folders {
		if s, ok := folder.Sys().(*syscall.Stat_t); ok {
			below.add(s.Dev)
		}
	}
	if file, ok := backingFile(device.Rdev); ok && !below[device.Rdev] {
		return Inside(file, dir)
	}
	return below[device.Rdev], nil
}

// beneath collects the block devices on which the file system of something
// lies: the device that it is on, the disk of a partition, the parts of a RAID,
// a volume or a file system of several devices, and what a loop device's file
// lies on in its turn. It is found out by what the kernel tells of itself; what
// it does not tell is not among them.
type beneath map[uint64]bool

// add adds the device that a file system has by stat.
func (b beneath) add(dev uint64) {
	if unix.Major(dev) == 0 {
		b.addAnonymous(dev)
		return
	}
	if b[dev] {
		return
	}
	b[dev] = true
	sys, err := filepath.EvalSymlinks(sysOf(dev))
	if err != nil {
		return
	}
	if _, err := os.Stat(filepath.Join(sys, "partition")); err == nil {
		b.addNumbered(filepath.Join(filepath.Dir(sys), "dev"))
	}
	parts, _ := filepath.Glob(filepath.Join(sys, "slaves/*/dev"))
	for _, part := range parts {
		b.addNumbered(part)
	}
	if file, ok := backingFile(dev); ok {
		b.addFile(file)
	}
}

func sysOf(dev uint64) string {
	return fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
}

// backingFile is the file that a loop device was made of.
func backingFile(dev uint64) (path string, ok bool) {
	file, err := os.ReadFile(sysOf(dev) + "/loop/backing_file")
	return strings.TrimSuffix(string(file), "\n"), err == nil
}

// addNumbered adds the device whose numbers are in a file, as major:minor.
func (b beneath) addNumbered(file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	major, minor, _ := strings.Cut(strings.TrimSpace(string(text)), ":")
	ma, errMajor := strconv.ParseUint(major, 10, 32)
	mi, errMinor := strconv.ParseUint(minor, 10, 32)
	if errMajor == nil && errMinor == nil {
		b.add(unix.Mkdev(uint32(ma), uint32(mi)))
	}
}

// addFile adds what a file lies on, or a device that a path names.
func (b beneath) addFile(path string) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		if info.Mode().Type() == fs.ModeDevice {
			b.add(s.Rdev)
		} else {
			b.add(s.Dev)
		}
	}
}

// addAnonymous adds what a file system without a device of its own number lies
// on: one of several devices, or one laid over others.
func (b beneath) addAnonymous(dev uint64) {
	if b[dev] {
		return
	}
	b[dev] = true
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer mounts.Close()
	number := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		mount, more, ok := strings.Cut(lines.Text(), " - ")
		fields, rest := strings.Fields(mount), strings.Fields(more)
		if !ok || len(fields) < 3 || fields[2] != number || len(rest) < 3 {
			continue
		}
		if strings.HasPrefix(rest[1], "/dev/") {
			b.addFile(rest[1])
		}
		for _, option := range strings.Split(rest[2], ",") {
			if folder, ok := strings.CutPrefix(option, "upperdir="); ok {
				b.addFile(folder)
			}
		}
	}
	b.addSiblings()
}

// addSiblings adds the other devices of file systems that lie on several.
func (b beneath) addSiblings() {
	systems, _ := filepath.Glob("/sys/fs/btrfs/*/devices")
	for _, system := range systems {
		devices, _ := filepath.Glob(system + "/*/dev")
		of := beneath{}
		for _, device := range devices {
			of.addNumbered(device)
		}
		for dev := range of {
			if !b[dev] {
				continue
			}
			for other := range of {
				b[other] = true
			}
			break
		}
	}
}
