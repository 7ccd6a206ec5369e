package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// SlotBytes is the size of a slot of a Memory: RBD's usual object.
const SlotBytes = 4 << 20

// Memory is shared by the two ends, cut into slots. The parent owns them: it
// takes one for a call and gives it back when the call was answered as it should.
// One whose call went wrong is lost, since what was left behind may still write
// to it.
//
// The parent copies what comes out of a slot before it looks at it, so that a
// child that has gone wild cannot change what was checked.
type Memory struct {
	file  *os.File
	bytes []byte
	free  chan int // buffered; nil in the child

	mu   sync.Mutex
	last []int         // given back, the last first: its pages are there already
	lost int           // that cannot be given back
	none chan struct{} // closed when all are lost

	mapped sync.RWMutex // held for writing when the mapping goes
}

// newMemory makes memory of a number of slots; pages come as they are touched.
func newMemory(slots int) (*Memory, error) {
	fd, err := unix.MemfdCreate("backy", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memory to share with a child process: %w", err)
	}
	m := &Memory{file: os.NewFile(uintptr(fd), "memory"), free: make(chan int, slots), none: make(chan struct{})}
	size := slots * SlotBytes
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, fmt.Errorf("memory to share with a child process: %w", err)
	}
	// Nobody can take it away under the other's hands.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, fmt.Errorf("memory to share with a child process: %w", err)
	}
	if err := m.mapFile(size); err != nil {
		return nil, err
	}
	for n := range slots {
		m.last = append(m.last, slots-1-n)
		m.free <- 0
	}
	return m, nil
}

// openMemory is the child's view of it.
func openMemory(file *os.File) (*Memory, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	m := &Memory{file: file}
	return m, m.mapFile(int(info.Size()))
}

func (m *Memory) mapFile(size int) (err error) {
	m.bytes, err = unix.Mmap(int(m.file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping shared memory: %w", err)
	}
	_ = unix.Madvise(m.bytes, unix.MADV_HUGEPAGE) // advice
	return nil
}

// Take waits for a free slot.
func (m *Memory) Take(ctx context.Context) (slot int, err error) {
	select {
	case <-m.free:
	case <-m.none:
		return 0, errors.New("calls that were left behind have all of the shared memory")
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.last) - 1
	slot = m.last[n]
	m.last = m.last[:n]
	return slot, nil
}

// Give gives a slot back.
func (m *Memory) Give(slot int) {
	m.mu.Lock()
	m.last = append(m.last, slot)
	m.mu.Unlock()
	m.free <- 0
}

// Lose is for a slot that what was left behind may still write to.
func (m *Memory) Lose(int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost++; m.lost == cap(m.free) {
		close(m.none)
	}
}

// Slot is the first n bytes of a slot.
func (m *Memory) Slot(slot, n int) ([]byte, error) {
	if slot < 0 || slot >= len(m.bytes)/SlotBytes || n < 0 || n > SlotBytes {
		return nil, fmt.Errorf("%d bytes of slot %d: there is none", n, slot)
	}
	at := slot * SlotBytes
	return m.bytes[at : at+n : at+n], nil
}

// Get copies the beginning of a slot to what is to be filled, one after the other.
func (m *Memory) Get(slot int, fill ...[]byte) error {
	total := 0
	for _, p := range fill {
		total += len(p)
	}
	return m.copy(slot, total, func(s []byte) {
		for _, p := range fill {
			s = s[copy(p, s):]
		}
	})
}

// Put copies p to the beginning of a slot.
func (m *Memory) Put(slot int, p []byte) error {
	return m.copy(slot, len(p), func(s []byte) { copy(s, p) })
}

func (m *Memory) copy(slot, n int, do func([]byte)) error {
	m.mapped.RLock()
	defer m.mapped.RUnlock()
	s, err := m.Slot(slot, n)
	if err == nil {
		do(s)
	}
	return err
}

// close takes the parent's mapping away.
func (m *Memory) close() error {
	m.mapped.Lock()
	defer m.mapped.Unlock()
	if m.bytes == nil {
		return nil
	}
	err := unix.Munmap(m.bytes)
	m.bytes = nil
	return errors.Join(err, m.file.Close())
}
