//go:build cgo

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

const (
	imageSize   = 8 << 30
	contentSize = 4200 << 20 // of real files, beside those of random bytes
	randomSize  = 512 << 20
	newSize     = 50 << 20 // of new files, at each change
	folderFiles = 1000     // files a folder
	blockSize   = 4096
	writes      = 300 // of 4 KiB each, at random places of a file
)

// work is the raw image: an ext4 file system of real files.
type work struct {
	path    string
	rnd     *rand.Rand
	sums    [][8]byte // of its blocks, as they were at the last change
	blocks  []int64   // of the file of random bytes
	folders [][]string
	more    []string // real files that are not in it yet
}

// makeWork fills a file system by debugfs, which needs neither root nor a loop
// device.
func (b *bench) makeWork(ctx context.Context) (*work, error) {
	w := &work{path: filepath.Join(b.o.work, "work.raw"), rnd: rand.New(rand.NewPCG(1, 2))}
	content := int64(float64(contentSize) * b.o.scale)
	files, err := realFiles(content + 20*newSize)
	if err != nil {
		return nil, err
	}
	if err := truncated(w.path, imageSize); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-E", "lazy_itable_init=1", w.path).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	random := filepath.Join(b.o.work, "random")
	if err := b.writeRandom(random, int64(float64(randomSize)*b.o.scale)); err != nil {
		return nil, err
	}
	var script strings.Builder
	fmt.Fprintf(&script, "write %s random\n", random)
	var total int64
	written := 0
	for ; total < content && written < len(files); written++ {
		if written%folderFiles == 0 {
			w.folders = append(w.folders, nil)
			fmt.Fprintf(&script, "mkdir /d%d\n", len(w.folders)-1)
		}
		f := files[written]
		total += f.size
		last := len(w.folders) - 1
		name := fmt.Sprintf("/d%d/f%d", last, written)
		w.folders[last] = append(w.folders[last], name)
		fmt.Fprintf(&script, "write %s %s\n", f.path, name)
	}
	for _, f := range files[written:] {
		w.more = append(w.more, f.path)
	}
	if err := w.debugfs(ctx, script.String()); err != nil {
		return nil, err
	}
	if err := w.findBlocks(ctx); err != nil {
		return nil, err
	}
	return w, errors.Join(os.Remove(random), w.remember())
}

type realFile struct {
	path string
	size int64
}

// realFiles finds files of this system: programs, libraries, documents, source.
func realFiles(wanted int64) (list []realFile, err error) {
	var total int64
	roots := []string{"/usr", "/opt", "/var/lib", os.Getenv("HOME")}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.ContainsAny(path, " \"\n") {
				return nil
			}
			if total >= wanted {
				return fs.SkipAll
			}
			info, err := d.Info()
			if err != nil || info.Size() == 0 || info.Size() > 256<<20 {
				return nil
			}
			if f, err := os.Open(path); err != nil {
				return nil
			} else if err := f.Close(); err != nil {
				return err
			}
			total += info.Size()
			list = append(list, realFile{path, info.Size()})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if total < wanted {
		return nil, fmt.Errorf("%d MiB of files found below %s, %d wanted: use a smaller -scale", total>>20, strings.Join(roots, ", "), wanted>>20)
	}
	return list, nil
}

func truncated(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func (b *bench) writeRandom(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	return errors.Join(err, f.Close())
}

// debugfs runs its commands on the image. It says what fails, and exits 0.
func (w *work) debugfs(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "debugfs", "-w", "-f", "-", w.path)
	cmd.Stdin = strings.NewReader(script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("debugfs: %w: %s", err, stderr.Bytes())
	}
	for _, line := range strings.Split(stderr.String(), "\n") {
		if line != "" && !strings.HasPrefix(line, "debugfs ") && !strings.HasPrefix(line, "Allocated inode") {
			return fmt.Errorf("debugfs: %s", line)
		}
	}
	return nil
}

func (w *work) findBlocks(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "debugfs", "-R", "blocks /random", w.path).Output()
	if err != nil {
		return err
	}
	for _, s := range strings.Fields(string(out)) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("debugfs says of the blocks: %q", s)
		}
		w.blocks = append(w.blocks, n)
	}
	if len(w.blocks) < writes {
		return fmt.Errorf("the file of random bytes has %d blocks", len(w.blocks))
	}
	return nil
}

// change does what the bench calls the change: writes inside a file, new files,
// a folder removed.
func (w *work) change(ctx context.Context, n int) error {
	var script strings.Builder
	fmt.Fprintf(&script, "mkdir /new%d\n", n)
	var total int64
	for total < newSize && len(w.more) > 0 {
		path := w.more[0]
		w.more = w.more[1:]
		info, err := os.Stat(path)
		if err != nil || info.Size() > newSize/4 {
			continue
		}
		total += info.Size()
		fmt.Fprintf(&script, "write %s /new%d/f%d\n", path, n, len(w.more))
	}
	if len(w.folders) > 0 {
		gone := w.folders[0]
		for _, name := range gone {
			fmt.Fprintf(&script, "rm %s\n", name)
		}
		fmt.Fprintf(&script, "rmdir %s\n", filepath.Dir(gone[0]))
		w.folders = w.folders[1:]
	}
	if err := w.debugfs(ctx, script.String()); err != nil {
		return err
	}
	f, err := os.OpenFile(w.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(w.rewrites(func(off int64, block []byte) error {
		_, err := f.WriteAt(block, off)
		return err
	}), f.Close())
}

// rewrites gives random bytes for random blocks of the file of those.
func (w *work) rewrites(put func(off int64, block []byte) error) error {
	at := func() int64 { return w.blocks[w.rnd.IntN(len(w.blocks))] }
	return randomBlocks(w.rnd, writes, at, put)
}

// remember notes what the blocks hold.
func (w *work) remember() error {
	w.sums = make([][8]byte, imageSize/blockSize)
	return w.eachBlock(func(i int, block []byte) error {
		w.sums[i] = short(block)
		return nil
	})
}

func short(block []byte) (sum [8]byte) {
	full := blake3.Sum256(block)
	copy(sum[:], full[:])
	return sum
}

// eachBlock reads the file but for its holes.
func (w *work) eachBlock(fn func(i int, block []byte) error) error {
	f, err := os.Open(w.path)
	if err != nil {
		return err
	}
	defer f.Close()
	buffer := make([]byte, 4<<20)
	for off := int64(0); off < imageSize; off += int64(len(buffer)) {
		data, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		off = data - data%int64(len(buffer))
		if _, err := f.ReadAt(buffer, off); err != nil {
			return err
		}
		for at := 0; at < len(buffer); at += blockSize {
			if err := fn(int((off+int64(at))/blockSize), buffer[at:at+blockSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

// snapshots imports the image and makes snapshots s0 to s<n>, a change between
// each and the next.
func (b *bench) snapshots(ctx context.Context, w *work, image string, n int) error {
	script := "rbd import --no-progress $FILE $IMAGE\n" + touchAll + "\nrbd snap create --no-progress $IMAGE@s0"
	if _, err := b.shell(ctx, script, env{"FILE": w.path, "IMAGE": image}); err != nil {
		return err
	}
	for i := 1; i <= n; i++ {
		if err := w.change(ctx, i); err != nil {
			return err
		}
		if err := importDiff(ctx, image, fmt.Sprint("s", i), imageSize, w.changed); err != nil {
			return err
		}
	}
	return nil
}

// touchAll sets an attribute of all objects of an image's pool. An OSD in memory
// holds an object that came in one write twice until its attributes change:
// MemStore's point into a copy of the whole transaction.
const touchAll = `/usr/bin/python3 -c '
import os, rados
with rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster:
    with cluster.open_ioctx(os.environ["IMAGE"].split("/")[0]) as pool:
        for object in pool.list_objects():
            object.set_xattr("bench", b"touched")
'`

// changed gives the blocks that changed since the last call.
func (w *work) changed(put func(off int64, block []byte) error) error {
	return w.eachBlock(func(i int, block []byte) error {
		sum := short(block)
		if sum == w.sums[i] {
			return nil
		}
		w.sums[i] = sum
		return put(int64(i)*blockSize, block)
	})
}

// randomWrites gives blocks of random bytes at random places of an image.
func randomWrites(rnd *rand.Rand, size int64, n int) func(func(int64, []byte) error) error {
	at := func() int64 { return rnd.Int64N(size / blockSize) }
	return func(put func(off int64, block []byte) error) error { return randomBlocks(rnd, n, at, put) }
}

func randomBlocks(rnd *rand.Rand, n int, at func() int64, put func(off int64, block []byte) error) error {
	block := make([]byte, blockSize)
	for range n {
		for i := 0; i < blockSize; i += 8 {
			binary.LittleEndian.PutUint64(block[i:], rnd.Uint64())
		}
		if err := put(at()*blockSize, block); err != nil {
			return err
		}
	}
	return nil
}

// importDiff writes blocks to an image by rbd import-diff, which makes the
// snapshot, too, unless that is "". The stream's format is that of Ceph's
// doc/dev/rbd-diff.rst, version 1.
func importDiff(ctx context.Context, image, snapshot string, size int64, blocks func(put func(off int64, block []byte) error) error) error {
	cmd := exec.CommandContext(ctx, "rbd", "import-diff", "--no-progress", "-", image)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	head := []byte("rbd diff v1\n")
	if snapshot != "" {
		head = binary.LittleEndian.AppendUint32(append(head, 't'), uint32(len(snapshot)))
		head = append(head, snapshot...)
	}
	head = binary.LittleEndian.AppendUint64(append(head, 's'), uint64(size))
	_, err = in.Write(head)
	if err == nil {
		err = blocks(func(off int64, block []byte) error {
			record := binary.LittleEndian.AppendUint64([]byte{'w'}, uint64(off))
			record = binary.LittleEndian.AppendUint64(record, uint64(len(block)))
			_, err := in.Write(append(record, block...))
			return err
		})
	}
	if err == nil {
		_, err = in.Write([]byte{'e'})
	}
	if err := errors.Join(err, in.Close(), cmd.Wait()); err != nil {
		return fmt.Errorf("rbd import-diff: %w: %s", err, stderr.Bytes())
	}
	return nil
}
