package batch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"backy/engine"
	"backy/store"
)

// Pool is where a run's images are. It is safe for concurrent use.
type Pool interface {
	// Source makes the source of an image's backup. Nothing is done to the
	// image before the source begins.
	Source(Image) engine.Source

	// Prepare fixes the state of an image that the next source of it will back
	// up, unless one fixed less than maxAge ago is waiting: its snapshot.
	Prepare(ctx context.Context, i Image, maxAge time.Duration) error

	// Prepared reports whether a state of the image that is younger than maxAge is
	// fixed: it waits, or one of these runs backs it up.
	Prepared(ctx context.Context, i Image, maxAge time.Duration, runs map[store.RunID]bool) (bool, error)

	// Claim keeps other nodes from working on an image. It fails with
	// ErrClaimed where one is.
	Claim(ctx context.Context, i Image) (Claim, error)

	// Outlives is for how long a claim may outlive the node that has it.
	Outlives() time.Duration

	// Identify finds out which image has the place now.
	Identify(ctx context.Context, i Image) (store.ImageID, error)

	// Admit refuses an image whose backup name is another image's, by the newest
	// level of the name. The source asks again, under the repository's claim.
	Admit(ctx context.Context, i Image, newest *store.Level) error

	// Exists reports whether the image is still there.
	Exists(ctx context.Context, i Image) (bool, error)
}

// Claim is held for as long as a node works on an image.
type Claim interface {
	// Lost is closed when others may have the claim: the work has to end.
	Lost() <-chan struct{}

	// Release gives the claim back. It is called once, also after it was lost.
	Release(ctx context.Context) error
}

// ErrClaimed tells that another node is at work on an image.
var ErrClaimed = errors.New("another node is at work on it")

// Image is one of a run's images.
type Image struct {
	Label string     // how people name it: rbd:vms/web1
	Name  store.Name // its backup name
	ID    store.ImageID
	Size  int64 // bytes; how much work it is as long as there is no level
	Rules engine.Rules

	// Err is why it cannot be backed up, where that is known already.
	Err error
}

// Options are the choices of a run. The zero value works.
type Options struct {
	Jobs    int // images at a time; 0: DefaultJobs
	Readers int // reads at a time, of all images together; 0: 8

	// MinAge is how old the newest level of an image is before it is backed up
	// again; 0 passes over only what others do while the run lasts.
	MinAge time.Duration

	Snapshots Snapshots
	Keep      *engine.Keep         // applied to an image after it was backed up; nil: nothing is removed
	KeepLess  bool                 // see engine.ForgetOptions.MetadataMayKeepLess
	Backup    engine.BackupOptions // of each; Readers, Budget, Progress and Warn are set by the run
	Watcher   Watcher              // may be nil

	// Again is how often images are looked at that others are at work on; 0: 10 s.
	Again time.Duration
}

// Snapshots says when the snapshots are made.
type Snapshots int

const (
	// Each is made when its image's backup begins.
	Each Snapshots = iota
	// First: those of all images are made before any is read, so that they lie
	// as close together as can be.
	First
	// Only: they are made, and wait for the next run. Of an image that a living
	// node is at work on, the snapshot that it has made will do.
	Only
)

// DefaultJobs is Options.Jobs where that is 0.
const DefaultJobs = 4

// MaxJobs is the most images at a time: each takes some memory of its own, and the
// more there are, the smaller are their packs.
const MaxJobs = 16

// Watcher is told what happens while it does, one call at a time.
type Watcher interface {
	// Begin tells that work on an image has begun; p tells how far it is.
	Begin(i Image, p *engine.Progress)

	// End tells what became of an image. Of those that are passed over there
	// was no Begin. An image may Begin again, after an End with the result
	// Waiting.
	End(i Image, r Result)

	// Wait tells how many images others are at work on, once nothing else is
	// left to do, and again each time after they were looked at.
	Wait(images int)

	// Warn tells a sentence about an image.
	Warn(i Image, text string)
}

// Word is what became of an image.
type Word string

// What can become of an image.
const (
	Done      Word = "done"      // there is a new level
	Prepared  Word = "snapshot"  // its snapshot waits for the next run
	Young     Word = "young"     // its name's newest level is of this image and younger than MinAge
	Elsewhere Word = "elsewhere" // another node has made a new level of it meanwhile, or with Only its snapshot
	Excluded  Word = "excluded"  // its owner wants no backup
	Gone      Word = "gone"      // it was removed meanwhile
	Failed    Word = "failed"
	Ended     Word = "ended"   // the run was ended before the image was done
	Waiting   Word = "waiting" // another node is at work on it; no run ends with it
)

// Result is what became of an image, in bytes and seconds.
type Result struct {
	Image    string              `json:"image"`
	Name     store.Name          `json:"name"`
	Result   Word                `json:"result"`
	Level    store.LevelNumber   `json:"level,omitempty"` // the new one, or the newest
	Time     time.Time           `json:"time,omitzero"`   // of that level
	Size     int64               `json:"size"`
	Read     int64               `json:"read"`    // from the image
	Changed  int64               `json:"changed"` // differed from the level before
	Added    int64               `json:"added"`   // to the repository
	Seconds  float64             `json:"seconds"` // of all work on the image
	Removed  []store.LevelNumber `json:"removed,omitempty"`
	Unclear  []string            `json:"nothing_forgotten,omitempty"` // why the policy was not applied: see engine.Forgotten
	Warnings []string            `json:"warnings,omitempty"`
	Error    string              `json:"error,omitempty"`

	Err error        `json:"-"`
	New *store.Level `json:"-"` // the new level; nil: none
}

func (r *Result) fail(err error) { r.Result, r.Err, r.Error = Failed, err, err.Error() }

func (r *Result) found(w Word, l store.Level) {
	r.Result, r.Level, r.Time, r.Size = w, l.Number, l.Time, l.Size
}

// FailedError tells that images were not backed up. Why is in their results,
// which may be of any kind, so it wraps none of them.
type FailedError struct{ Failed, Images int }

func (e *FailedError) Error() string {
	return fmt.Sprintf("%d of %d images failed", e.Failed, e.Images)
}

// SameNameError tells that two images of a run have one backup name, so that
// the first is not backed up. Level is the name's newest one if it is of the
// second image, which goes on; else 0, and neither is.
type SameNameError struct {
	Name  store.Name
	A, B  string // labels
	Level store.LevelNumber
}

func (e *SameNameError) Error() string {
	whose := "give each"
	if e.Level != 0 {
		whose = fmt.Sprintf("its newest level, %s, is of %s: give %s", e.Level, e.B, e.A)
	}
	return fmt.Sprintf("%s and %s would both be %s in the repository: %s a name of its own", e.A, e.B, e.Name, whose)
}
