package store

import (
	"fmt"
	"time"
)

// Level is the record of one backup. Putting it is the backup's commit. It
// reads as a full backup whatever it was compared against.
type Level struct {
	Name   Name        `json:"name"`
	Number LevelNumber `json:"number"`
	Run    RunID       `json:"run"`

	// Time is the moment whose bytes the level holds: its snapshot's time, or
	// the run's start. Committed is when the run ended.
	Time      time.Time `json:"time"`
	Committed time.Time `json:"committed"`

	Size      int64 `json:"size"`          // bytes of the image
	ChunkSize int64 `json:"chunk_size"`    // bytes
	Fanout    int   `json:"fanout"`        // children of a map node
	Root      Ref   `json:"root,omitzero"` // the map's root; zero where the image is all zeros

	// Base is the level compared against, 0 where there was none.
	Base LevelNumber `json:"base,omitempty"`

	Origin Origin            `json:"origin"`
	Stats  Stats             `json:"stats"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Origin is where a level came from.
type Origin struct {
	// Kind is rbd, file, device or pipe.
	Kind string `json:"kind"`
	// Source is what the user named.
	Source string `json:"source"`
	// Time is the moment whose bytes were read.
	Time time.Time `json:"time"`
	// Diff is how it was found out what to read: see the Diff constants.
	Diff string     `json:"diff"`
	RBD  *RBDOrigin `json:"rbd,omitempty"`
}

// How it was found out what to read.
const (
	DiffFast      = "fast"      // fast diff from the base, refined by exact diff
	DiffExact     = "exact"     // exact diff from the base
	DiffAllocated = "allocated" // no base to diff from: what is allocated, compared by checksum
	DiffHints     = "hints"     // extents that the user gave
	DiffNone      = "none"      // everything, compared by checksum
)

// RBDOrigin identifies the snapshot that a level was read from. Cluster,
// PoolID, ImageID, SnapshotID and Snapshot together make a diff base; no part
// of it alone does.
type RBDOrigin struct {
	Cluster    string    `json:"cluster"` // fsid
	Pool       string    `json:"pool"`
	PoolID     int64     `json:"pool_id"`
	Namespace  string    `json:"namespace,omitempty"`
	Image      string    `json:"image"`
	ImageID    string    `json:"image_id"`
	Snapshot   string    `json:"snapshot"`
	SnapshotID uint64    `json:"snapshot_id"`
	Own        bool      `json:"own"` // backy made the snapshot
	Layout     RBDLayout `json:"layout"`

	// Metadata is the image's (rbd image-meta) when the backup ran; nil: unknown.
	Metadata map[string]string `json:"metadata,omitzero"`

	// Migrating says that the image, or one that it is a clone of, was in a live
	// migration: then Ceph's diffs are wrong, and no diff may begin at the snapshot.
	Migrating bool `json:"migrating,omitempty"`

	// LastSnapshot is the id of the image's newest snapshot when the backup ran, if
	// it was not migrating then: what is newer was not made while it migrated. 0:
	// unknown.
	LastSnapshot uint64 `json:"last_snapshot,omitempty"`

	// Rules are what the image's metadata said of its backups: the keys that
	// begin with "backy.". RulesUnknown is why they could not be read.
	Rules        map[string]string `json:"rules,omitempty"`
	RulesUnknown string            `json:"rules_unknown,omitempty"`
}

// RBDLayout is what a restore needs to create an image alike.
type RBDLayout struct {
	Order       int      `json:"order"` // objects are 1<<Order bytes
	StripeUnit  uint64   `json:"stripe_unit"`
	StripeCount uint64   `json:"stripe_count"`
	Features    []string `json:"features"`
	DataPool    string   `json:"data_pool,omitempty"`
}

// Stats are a backup's figures, in bytes.
type Stats struct {
	Read    int64   `json:"read"`    // read from the source
	Changed int64   `json:"changed"` // differed from the base, or became holes, or was cut off
	Stored  int64   `json:"stored"`  // written to the repository: packs and maps
	Reused  int64   `json:"reused"`  // changed, but known from elsewhere in the repository
	Chunks  int64   `json:"chunks"`  // number of new chunks stored
	Mended  int64   `json:"mended"`  // number of bad chunks made whole again
	Seconds float64 `json:"seconds"`

	// Emptied are those of the changed bytes that became holes or were cut off, and
	// Data all that are no holes; 0: unknown, as in levels of older versions.
	Emptied int64 `json:"emptied,omitempty"`
	Data    int64 `json:"data,omitempty"`

	// Raw are the bytes of the new chunks as they were read, and Packed as they
	// were stored: what compression made of them. 0 in levels of older versions.
	Raw         int64  `json:"raw,omitempty"`
	Packed      int64  `json:"packed,omitempty"`
	Compression string `json:"compression,omitempty"` // what Compression.String prints
}

// Chunks is the number of chunks that the level's size takes.
func (l *Level) Chunks() int64 { return (l.Size + l.ChunkSize - 1) / l.ChunkSize }

// Validate is called after decoding and before encoding.
func (l *Level) Validate() error {
	switch {
	case l.Name.Validate() != nil:
		return l.Name.Validate()
	case l.Number == 0:
		return fmt.Errorf("level record: number 0")
	case l.Run == 0:
		return fmt.Errorf("level record: no run id")
	case l.Size < 0:
		return fmt.Errorf("level record: size %d", l.Size)
	case !validChunkSize(l.ChunkSize):
		return fmt.Errorf("level record: chunk size %d", l.ChunkSize)
	case !validFanout(l.Fanout):
		return fmt.Errorf("level record: fan-out %d", l.Fanout)
	case l.Root.IsZero() != (l.Root.Sum == Checksum{}):
		return fmt.Errorf("level record: half a root reference")
	}
	return nil
}

func validChunkSize(n int64) bool { return n >= 16<<10 && n <= 4<<20 && n&(n-1) == 0 }

func validFanout(n int) bool { return n >= 2 && n <= 256 && n&(n-1) == 0 }
