package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"backy/store/internal/key"
)

// These tests need file systems of their own: full ones, read-only ones. They
// run in processes with their own mount namespace, so nothing stays mounted
// whatever happens, and root is not needed where the kernel lets users have
// namespaces. Where nobody may mount, as in most containers, what is left is
// the same errors injected: TestPutFails.

const mayNotMount = "may not mount"

func init() {
	for name, role := range map[string]func(context.Context, string) error{
		"full": fullRole, "no inodes": noInodesRole, "read-only": readOnlyRole, "unmount": unmountRole,
	} {
		roles[name] = func(place string) error {
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("%s: %w", mayNotMount, err)
			}
			return role(context.Background(), place)
		}
	}
}

func inNamespace(t *testing.T, role string) {
	t.Helper()
	cmd := inProcess(t, role, t.TempDir())
	var talk bytes.Buffer
	cmd.Stderr = &talk
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	switch err := cmd.Run(); {
	case errors.Is(err, fs.ErrPermission), err != nil && strings.Contains(talk.String(), mayNotMount):
		t.Logf("not run: this process %s: %v %s", mayNotMount, err, &talk)
	case err != nil:
		t.Errorf("%v: %s", err, &talk)
	}
}

func TestFullFileSystem(t *testing.T)        { inNamespace(t, "full") }
func TestFileSystemOutOfInodes(t *testing.T) { inNamespace(t, "no inodes") }
func TestReadOnlyFileSystem(t *testing.T)    { inNamespace(t, "read-only") }
func TestUnmount(t *testing.T)               { inNamespace(t, "unmount") }

func mountTmp(place, options string) (*Dir, error) {
	err := unix.Mount("none", place, "tmpfs", 0, options)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%s: %w", mayNotMount, err)
	}
	if err != nil {
		return nil, err
	}
	return Open(place)
}

// nothingLeft tells what is in the repository's folder besides these objects.
func nothingLeft(d *Dir, but ...string) error {
	return filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == d.root || filepath.Dir(path) == d.root && e.IsDir() {
			return err
		}
		for _, k := range but {
			if strings.HasPrefix(d.path(k), path) && !strings.Contains(path, key.TempPrefix) {
				return nil
			}
		}
		return fmt.Errorf("%s is left", path)
	})
}

func fullRole(c context.Context, place string) error {
	d, err := mountTmp(place, "size=1m")
	if err != nil {
		return err
	}
	part := make([]byte, 256<<10)
	for range 3 {
		if err := d.Put(c, "data/r/large", part, part, part, part, part); !errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("Put of more than there is space for: %w", err)
		}
		if err := nothingLeft(d); err != nil {
			return err
		}
	}
	if err := d.Put(c, "data/r/small", part, part, part); err != nil {
		return fmt.Errorf("Put of less: %w", err)
	}
	if err := d.Put(c, "data/r/small", part, part, part); !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("Put of an existing key on a full file system: %w", err)
	}
	if err := d.Put(c, "data/r/more", part, part); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("Put of more: %w", err)
	}
	return nothingLeft(d, "data/r/small")
}

func noInodesRole(c context.Context, place string) error {
	for inodes := 2; ; inodes++ {
		d, err := mountTmp(place, fmt.Sprintf("nr_inodes=%d", inodes))
		if err != nil {
			return err
		}
		err = d.Put(c, "data/r/0", []byte("x"))
		if err == nil {
			// Its own folder, two more and the file need this many at least.
			if inodes < 4 {
				return fmt.Errorf("Put succeeded with %d inodes", inodes)
			}
			return nil
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("Put with %d inodes: %w", inodes, err)
		}
		if err := nothingLeft(d); err != nil {
			return fmt.Errorf("with %d inodes: %w", inodes, err)
		}
		if err := d.Close(); err != nil {
			return err
		}
		if err := unix.Unmount(place, 0); err != nil {
			return err
		}
	}
}

func readOnlyRole(c context.Context, place string) error {
	d, err := mountTmp(place, "")
	if err != nil {
		return err
	}
	if err := d.Put(c, "data/r/0", []byte("x")); err != nil {
		return err
	}
	if err := unix.Mount("", place, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("remount read-only: %w", err)
	}
	if _, err := d.Get(c, "data/r/0", make([]byte, 1), 0); err != nil {
		return err
	}
	listed := 0
	if err := d.List(c, "", func(string, int64) error { listed++; return nil }); err != nil || listed != 1 {
		return fmt.Errorf("List: %d, %w", listed, err)
	}
	if err := d.Sync(c, "data/r/0"); err != nil {
		return err
	}
	if err := d.Put(c, "data/r/0"); !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("Put of an existing key: %w", err)
	}
	for _, key := range []string{"data/r/1", "new/r/1", "k"} {
		if err := d.Put(c, key, []byte("x")); !errors.Is(err, syscall.EROFS) {
			return fmt.Errorf("Put: %w", err)
		}
	}
	if err := d.Delete(c, "data/r/0"); !errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("Delete: %w", err)
	}
	return nothingLeft(d, "data/r/0")
}

// unmountRole unmounts the file system beneath an open Dir. What is put then
// must not go into the folder that it was mounted on.
func unmountRole(c context.Context, place string) error {
	d, err := mountTmp(place, "")
	if err != nil {
		return err
	}
	if err := unix.Unmount(place, 0); !errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("unmount while the repository is open: %w", err)
	}
	if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
		return err
	}
	if err := d.Put(c, "data/r/0", []byte("x")); err != nil {
		return err
	}
	if _, err := d.Get(c, "data/r/0", make([]byte, 1), 0); err != nil {
		return err
	}
	below, err := os.ReadDir(place)
	if err == nil && len(below) > 0 {
		err = fmt.Errorf("%s was made where nothing is mounted", below[0].Name())
	}
	return err
}
