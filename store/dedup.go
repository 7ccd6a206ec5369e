package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"backy/store/pending"
)

// The index is a file of buckets of one page each. A checksum belongs to one
// bucket; a full bucket forgets an entry for each new one. Lookups and
// inserts are one small read or write each, which the page cache serves.
const (
	indexBuckets    = 1 << 15
	bucketSize      = 4096
	indexEntrySize  = 40 // 20 bytes of checksum, run, seq, index, CRC-32C
	bucketEntries   = bucketSize / indexEntrySize
	indexSumSize    = 20
	memoryIndexSize = 1 << 15 // entries, where there is no file
)

// index remembers where chunks were seen: checksum to reference. It may
// forget, and what it answers is never believed: a hit is a hint where to
// look. So it needs no locks between processes, no syncing and no repair, and
// can be deleted at any time.
type index struct {
	file *os.File // nil: in memory

	mu     sync.Mutex
	memory map[Checksum]Ref
	page   [bucketSize]byte
}

// openIndex opens or makes the index file of a repository below a cache
// folder. Without a folder, or where it cannot be had, the index is kept in
// memory and is smaller.
func openIndex(cache string, id RepositoryID) *index {
	if cache != "" {
		folder := filepath.Join(cache, id.String())
		defer pending.Begin("open", folder, "chunks.v1").End()
		if cacheFolder(folder) == nil {
			f, err := openCache(filepath.Join(folder, "chunks.v1"), os.O_RDWR|os.O_CREATE)
			if err == nil {
				return &index{file: f}
			}
		}
	}
	return &index{memory: map[Checksum]Ref{}}
}

func (x *index) close() error {
	if x.file == nil {
		return nil
	}
	return x.file.Close()
}

func bucketOf(sum Checksum) int64 {
	return int64(binary.LittleEndian.Uint32(sum[28:])%indexBuckets) * bucketSize
}

// lookup returns where a chunk may be.
func (x *index) lookup(sum Checksum) (Ref, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.file == nil {
		ref, ok := x.memory[sum]
		return ref, ok
	}
	if !x.read(bucketOf(sum)) {
		return Ref{}, false
	}
	for i := range bucketEntries {
		p := x.page[i*indexEntrySize:][:indexEntrySize]
		if [indexSumSize]byte(p) == [indexSumSize]byte(sum[:indexSumSize]) {
			return decodeIndexEntry(p, sum)
		}
	}
	return Ref{}, false
}

func (x *index) read(off int64) bool {
	defer pending.Begin("read", "", x.file.Name()).End()
	n, err := x.file.ReadAt(x.page[:], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	clear(x.page[n:])
	return true
}

func decodeIndexEntry(p []byte, sum Checksum) (Ref, bool) {
	if binary.LittleEndian.Uint32(p[36:]) != crc32.Checksum(p[:36], castagnoli) {
		return Ref{}, false
	}
	return Ref{
		Sum:   sum,
		Pack:  PackID{Run: RunID(binary.LittleEndian.Uint64(p[20:])), Seq: binary.LittleEndian.Uint32(p[28:])},
		Index: binary.LittleEndian.Uint32(p[32:]),
	}, true
}

// insert remembers references.
func (x *index) insert(ref Ref) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.file == nil {
		if len(x.memory) >= memoryIndexSize {
			for sum := range x.memory { // in random order
				delete(x.memory, sum)
				break
			}
		}
		x.memory[ref.Sum] = ref
		return
	}
	bucket := bucketOf(ref.Sum)
	if !x.read(bucket) {
		return
	}
	at := -1
	for i := range bucketEntries {
		p := x.page[i*indexEntrySize:][:indexEntrySize]
		if binary.LittleEndian.Uint64(p[20:]) == 0 || [indexSumSize]byte(p) == [indexSumSize]byte(ref.Sum[:indexSumSize]) {
			at = i
			break
		}
	}
	if at < 0 {
		var random [1]byte
		rand.Read(random[:])
		at = int(random[0]) % bucketEntries
	}
	p := x.page[at*indexEntrySize:][:0]
	p = append(p, ref.Sum[:indexSumSize]...)
	p = binary.LittleEndian.AppendUint64(p, uint64(ref.Pack.Run))
	p = binary.LittleEndian.AppendUint32(p, ref.Pack.Seq)
	p = binary.LittleEndian.AppendUint32(p, ref.Index)
	p = binary.LittleEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
	defer pending.Begin("write", "", x.file.Name()).End()
	// A write that fails loses a hint and nothing else.
	_, _ = x.file.WriteAt(p, bucket+int64(at)*indexEntrySize)
}

// maxCachedTables bounds the tables kept for proving hits: 32 bytes an entry,
// about 50 KiB for a full pack at the default chunk size.
const maxCachedTables = 128

// tableCache keeps the checksums of packs' tables, as they are in the newest
// generation that was there when the table was read.
type tableCache struct {
	repo *Repository

	mu     sync.Mutex
	tables map[PackID][]Checksum // nil: could not be read
}

// sums returns the checksums of a data pack's table; an absent entry has none.
// Before the first answer the pack has been made durable.
func (c *tableCache) sums(ctx context.Context, id PackID) ([]Checksum, error) {
	c.mu.Lock()
	sums, ok := c.tables[id]
	c.mu.Unlock()
	if ok {
		return sums, nil
	}
	sums, err := c.repo.readTable(ctx, id)
	if err != nil && context.Cause(ctx) != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		if err := c.repo.noteBadTable(ctx, id); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tables == nil {
		c.tables = map[PackID][]Checksum{}
	}
	if len(c.tables) >= maxCachedTables {
		for id := range c.tables {
			delete(c.tables, id)
			break
		}
	}
	c.tables[id] = sums
	return sums, nil
}

// maxMet bounds how many packs of earlier runs are met at a run's beginning.
const maxMet = 4096

// meetRuns fills the index from the packs of runs that did not commit, so that
// the next run of their name does not store again what they had stored.
func (r *Repository) meetRuns(ctx context.Context, runs []RunID) error {
	met := 0
	for _, run := range runs {
		keys, err := r.list(ctx, dataPrefix+run.String()+"/")
		if err != nil {
			return err
		}
		for _, key := range keys {
			_, id, _, err := parsePackKey(key)
			if err != nil {
				continue
			}
			if met++; met > maxMet {
				return nil
			}
			_, entries, err := r.readPackTable(ctx, key)
			if err != nil {
				if context.Cause(ctx) != nil {
					return context.Cause(ctx)
				}
				continue // a pack that cannot be read is of no use
			}
			for i := range entries {
				if entries[i].Codec != Absent {
					r.index.insert(Ref{Sum: entries[i].Sum, Pack: id, Index: uint32(i)})
				}
			}
		}
	}
	return nil
}

// readTable reads the table of a data pack's newest generation and makes that
// durable. A pack that is bad or gone is an error.
func (r *Repository) readTable(ctx context.Context, id PackID) ([]Checksum, error) {
	generations, err := r.listGenerations(ctx, dataPrefix, id)
	if err != nil {
		return nil, err
	}
	if len(generations) == 0 {
		return nil, fmt.Errorf("%w: pack %s is gone", errBadPack, id)
	}
	key := packKey(dataPrefix, id, generations[0])
	h, entries, err := r.readPackTable(ctx, key)
	if err != nil {
		return nil, err
	}
	// A pack that was cut has its table still.
	if n, err := r.backend.Get(ctx, key, make([]byte, 1), h.Length-1); n == 0 {
		return nil, fmt.Errorf("%s: %w: it ends early: %w", key, errBadPack, err)
	}
	if err := r.sync(ctx, key); err != nil {
		return nil, err
	}
	sums := make([]Checksum, len(entries))
	for i := range entries {
		if entries[i].Codec != Absent {
			sums[i] = entries[i].Sum
		}
	}
	return sums, nil
}

// readPackTable reads and checks the header and the table of one pack object.
func (r *Repository) readPackTable(ctx context.Context, key string) (h packHeader, entries []entry, err error) {
	var head [packHeaderSize]byte
	if _, err = r.backend.Get(ctx, key, head[:], 0); err != nil {
		return h, nil, err
	}
	if h, err = decodePackHeader(head[:]); err != nil {
		return h, nil, fmt.Errorf("%s: %w", key, err)
	}
	folder, id, generation, err := parsePackKey(key)
	if err != nil {
		return h, nil, err
	}
	if h.Repository != r.ID || h.Pack != id || h.Generation != generation || foldersOf(h.Kind)[0] != folder && (h.Kind != KindMap || folder != twinsPrefix) {
		return h, nil, fmt.Errorf("%s: %w: its header belongs to another pack", key, errBadPack)
	}
	table := make([]byte, int(h.Entries)*entrySize)
	if _, err = r.backend.Get(ctx, key, table, packHeaderSize); err != nil && !errors.Is(err, io.EOF) {
		return h, nil, err
	}
	if entries, err = decodeTable(&h, table); err != nil {
		return h, nil, fmt.Errorf("%s: %w", key, err)
	}
	return h, entries, nil
}
