package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The objects of a gc in work/. All are named for its run:
//
//	gc.<run>             the claim
//	condemned.<run>.<i>  packs into which no run that begins now may make a new reference
//	waiting.<run>        put when all of those are: which backups had begun before, which levels were removed;
//	                     it tells others for whom the gc waits, and nothing is decided by it
//	verdict.<run>.<i>    what is to be deleted or written anew
//	verdict.<run>        the commit key: all of those are there · or a tombstone
func gcKey(what string, run RunID) string { return workPrefix + what + "." + run.String() }

func gcPartKey(what string, run RunID, part int) string {
	return gcKey(what, run) + "." + strconv.Itoa(part)
}

// gcClaim announces a gc.
type gcClaim struct {
	Run     RunID     `json:"run"`
	Process process   `json:"process"`
	Started time.Time `json:"started"`
	Beat    float64   `json:"beat_seconds"`
}

// packList names packs of a kind, by run.
type packList struct {
	Kind  Kind               `json:"kind"`
	Packs map[RunID][]uint32 `json:"packs"`
}

// gcWaiting is what a gc knew when its condemned packs were all put.
type gcWaiting struct {
	// Claims are those of the backups that had begun: they may not know what is
	// condemned.
	Claims []claim `json:"claims"`
	// Removed are the commit records that were removed at the first mark. Of
	// all others, removed since or not, the chunks count as reached.
	Removed []string `json:"removed"`
}

// sentence is what becomes of one pack: it is deleted, or written anew as its
// next generation with the entries in Keep. It is about the generations up to
// Generation and no later one.
type sentence struct {
	Kind       Kind     `json:"kind"`
	Pack       PackID   `json:"pack"`
	Generation uint32   `json:"generation"`
	Keep       []uint64 `json:"keep,omitempty"` // bitmap, 64 entries a word
}

// verdictPart is a part of a verdict.
type verdictPart struct {
	Sentences []sentence `json:"sentences"`
}

// verdict is a gc's commit.
type verdict struct {
	Run     RunID    `json:"run"`
	Parts   int      `json:"parts"`
	Records []string `json:"records"` // of removed levels, deleted last
}

// gcTombstone stands at the commit key of a gc that may not commit.
type gcTombstone struct {
	Run  RunID     `json:"run"`
	By   RunID     `json:"by"`
	Time time.Time `json:"time"`
}

// partSize bounds how many packs stand in one object.
const partSize = 20_000

// putCondemned puts a list of packs in parts.
func (r *Repository) putCondemned(ctx context.Context, run RunID, condemned []packName) error {
	for part, of := 0, condemned; len(of) > 0; part++ {
		n := min(len(of), partSize)
		lists := []packList{{Kind: KindData, Packs: map[RunID][]uint32{}}, {Kind: KindMap, Packs: map[RunID][]uint32{}}}
		for _, p := range of[:n] {
			list := lists[0]
			if p.folder != dataPrefix {
				list = lists[1]
			}
			list.Packs[p.id.Run] = append(list.Packs[p.id.Run], p.id.Seq)
		}
		if err := r.putObject(ctx, gcPartKey("condemned", run, part), "condemned", lists); err != nil {
			return fmt.Errorf("condemn packs: %w", err)
		}
		of = of[n:]
	}
	return nil
}

// condemned are the data packs into which a run may make no new reference.
type condemned struct {
	run   RunID
	packs map[PackID]bool
	// unknown: not all of them could be read, so any pack of another run may be
	// one. That costs space until the next gc, and keeps nobody waiting for it.
	unknown bool
}

func (c *condemned) has(id PackID) bool {
	return c.packs[id] || c.unknown && id.Run != c.run
}

// eachCondemned calls fn for every pack that any gc has condemned, until ctx
// ends, with that gc's run. unknown tells that not all of the lists could be read.
func (r *Repository) eachCondemned(ctx context.Context, fn func(name packName, by RunID)) (unknown bool, err error) {
	keys, err := r.list(ctx, workPrefix+"condemned.")
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		var lists []packList
		err := r.getObject(ctx, key, "condemned", &lists)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // that gc is over
		case errors.Is(err, errBadObject):
			unknown = true
		case err != nil:
			return false, fmt.Errorf("read which packs a gc has condemned: %w", err)
		}
		by, _, _ := strings.Cut(strings.TrimPrefix(key, workPrefix+"condemned."), ".")
		gcRun, _ := ParseRunID(by)
		for _, list := range lists {
			for run, seqs := range list.Packs {
				for _, seq := range seqs {
					fn(packName{foldersOf(list.Kind)[0], PackID{run, seq}}, gcRun)
				}
			}
		}
	}
	return unknown, nil
}

// condemnedPacks reads which data packs any gc has condemned. A run that began
// before this may go on with what it knew; one that begins now may not.
func (r *Repository) condemnedPacks(ctx context.Context, run RunID) (c *condemned, err error) {
	c = &condemned{run: run, packs: map[PackID]bool{}}
	c.unknown, err = r.eachCondemned(ctx, func(name packName, _ RunID) {
		if name.folder == dataPrefix {
			c.packs[name.id] = true
		}
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// condemnedBy reads what one gc has condemned.
func (r *Repository) condemnedBy(ctx context.Context, run RunID) (condemned []packName, err error) {
	keys, err := r.list(ctx, gcKey("condemned", run)+".")
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		var lists []packList
		if err := r.getObject(ctx, key, "condemned", &lists); err != nil {
			return nil, err
		}
		for _, list := range lists {
			for run, seqs := range list.Packs {
				for _, seq := range seqs {
					condemned = append(condemned, packName{foldersOf(list.Kind)[0], PackID{run, seq}})
				}
			}
		}
	}
	slices.SortFunc(condemned, comparePackNames)
	return condemned, nil
}

// gcRuns lists the runs of gcs that have left objects of a kind in work/.
func (r *Repository) gcRuns(ctx context.Context, what string) ([]RunID, error) {
	prefix := workPrefix + what + "."
	keys, err := r.list(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var runs []RunID
	for _, key := range keys {
		name, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), ".")
		if run, err := ParseRunID(name); err == nil && !slices.Contains(runs, run) {
			runs = append(runs, run)
		}
	}
	return runs, nil
}

// readVerdict reads what stands at a gc's commit key. A nil verdict without an
// error is a tombstone.
func (r *Repository) readVerdict(ctx context.Context, run RunID) (*verdict, error) {
	p, err := readAll(ctx, r.backend, gcKey("verdict", run), maxJSON)
	if err != nil {
		return nil, err
	}
	e, err := openObject(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", gcKey("verdict", run), err)
	}
	var t gcTombstone
	if e.decode("tombstone", &t) == nil {
		return nil, nil
	}
	var v verdict
	if err := e.decode("verdict", &v); err != nil {
		return nil, fmt.Errorf("%s: %w", gcKey("verdict", run), err)
	}
	return &v, nil
}

// sentences reads a gc's verdict with all its parts; nil without an error is a
// tombstone. A part that is missing is as bad as one that is damaged: they go
// after the commit key.
func (r *Repository) sentences(ctx context.Context, run RunID) (*verdict, []sentence, error) {
	v, err := r.readVerdict(ctx, run)
	if v == nil || err != nil {
		return nil, nil, err
	}
	var list []sentence
	for part := range v.Parts {
		var p verdictPart
		err := r.getObject(ctx, gcPartKey("verdict", run, part), "verdict part", &p)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", errBadObject, err)
		}
		if err != nil {
			return nil, nil, err
		}
		list = append(list, p.Sentences...)
	}
	return v, list, nil
}

// dropGC deletes what a gc has left in work/, but for its tombstone: that
// keeps it from committing for ever. What it condemned goes last: while there
// is a verdict, nothing may refer anew to what it names. mayDelete is asked
// before anything of another run goes; nil for a run's own.
func (r *Repository) dropGC(ctx context.Context, run RunID, verdictToo bool, mayDelete func(context.Context) error) error {
	for _, what := range []string{"verdict", "gc", "waiting", "condemned"} {
		keys, err := r.list(ctx, gcKey(what, run))
		if err != nil {
			return err
		}
		// The commit key sorts before its parts: without it they are nothing.
		if what == "verdict" && !verdictToo {
			keys = slices.DeleteFunc(keys, func(key string) bool { return key == gcKey(what, run) })
		}
		if err := r.deleteAll(ctx, keys, mayDelete); err != nil {
			return err
		}
	}
	return nil
}

// deleteAll deletes objects in order. mayDelete, unless it is nil, is asked
// before each.
func (r *Repository) deleteAll(ctx context.Context, keys []string, mayDelete func(context.Context) error) error {
	for _, key := range keys {
		if mayDelete != nil {
			if err := mayDelete(ctx); err != nil {
				return err
			}
		}
		if err := r.backend.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
