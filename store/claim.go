package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// defaultBeat is how often a run says that its work moves on.
const defaultBeat = 30 * time.Second

// claim is a run's announcement, put exclusively in work/: its level number,
// the lock on its name and the target of a fence at once. It is over as soon as
// anything stands at its commit key.
type claim struct {
	Name    Name        `json:"name"`
	Number  LevelNumber `json:"number"`
	Run     RunID       `json:"run"`
	Process process     `json:"process"`
	Started time.Time   `json:"started"`
	Beat    float64     `json:"beat_seconds"`
}

func (c *claim) Validate() error {
	if c.Name.Validate() != nil || c.Number == 0 || c.Run == 0 || c.Beat <= 0 {
		return errors.New("claim without a name, a number, a run or a beat")
	}
	return nil
}

func (c *claim) beat() time.Duration { return time.Duration(c.Beat * float64(time.Second)) }

func (c *claim) who() string {
	if c.Process == (process{}) {
		return "its claim cannot be read, so which process it is, and since when, is unknown"
	}
	return fmt.Sprintf("%s since %s", c.Process, c.Started.Local().Format("2006-01-02 15:04:05"))
}

// BusyError tells that another run is at work on a name.
type BusyError struct {
	Name Name
	Who  string // process, host and since when, for people
}

func (e *BusyError) Error() string {
	return string(e.Name) + ": another run is at work on this name: " + e.Who
}

// ErrFenced tells that another run has declared this one dead and keeps it from
// committing.
var ErrFenced = errors.New("another run took this one for dead and fenced it; start again")

func claimKey(name Name, n LevelNumber) string {
	return workPrefix + "claim." + name.escape() + "." + n.String()
}

func claimPrefix(name Name) string { return workPrefix + "claim." + name.escape() + "." }

func beatPrefix(run RunID) string { return workPrefix + "beat." + run.String() + "." }

func beatKey(run RunID, n int) string { return beatPrefix(run) + strconv.Itoa(n) }

// takeClaim makes this run the only one of its name. It fences runs that are
// dead, and fails with a *BusyError where one is not.
//
// The claim's run counts as running until the caller takes it from running.
func (r *Repository) takeClaim(ctx context.Context, name Name, beat time.Duration) (_ *claim, err error) {
	if err := r.writable(ctx); err != nil {
		return nil, err
	}
	now := r.clock()
	c := &claim{Name: name, Run: r.newRun(now), Process: r.self, Started: now.UTC(), Beat: beat.Seconds()}
	running.Store(c.Run, struct{}{})
	defer func() {
		if err != nil {
			running.Delete(c.Run)
		}
	}()
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		last, err := r.lastNumber(ctx, name)
		if err != nil {
			return nil, err
		}
		settled, err := r.settleClaims(ctx, name, last, c.Run)
		if err != nil {
			return nil, err
		}
		if !settled {
			continue
		}
		c.Number = last + 1
		err = r.putObject(ctx, claimKey(name, c.Number), "claim", c)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("claim %s: %w", name, err)
		}
		// The numbers were listed before the claim was there: another run may
		// have begun and committed in between.
		// Or an older copy of the repository was put back: a number that leaves a
		// gap would look like levels that were lost.
		if last, err = r.lastNumber(ctx, name); err == nil && last == c.Number-1 {
			return c, nil
		}
		if dropErr := r.dropClaim(context.WithoutCancel(ctx), c); dropErr != nil || err != nil {
			return nil, errors.Join(err, dropErr)
		}
		// Who has fenced it there may be about to delete what it writes.
		running.Delete(c.Run)
		c.Run = r.newRun(r.clock())
		running.Store(c.Run, struct{}{})
	}
}

// lastNumber is the highest number of a name that is taken: by a level, a
// tombstone or a removal, or by a recovery that puts a lost level back.
func (r *Repository) lastNumber(ctx context.Context, name Name) (last LevelNumber, err error) {
	err = r.backend.List(ctx, levelPrefix(name), func(key string, _ int64) error {
		if _, n, _, err := parseLevelKey(key); err == nil {
			last = max(last, n)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	recovered, err := r.recoverClaims(ctx, name)
	for _, l := range recovered {
		last = max(last, l.Number)
	}
	return last, err
}

// settleClaims clears the claims of a name that are over, and fences those that
// are dead. settled is false where something changed, so that the numbers
// must be looked at again.
func (r *Repository) settleClaims(ctx context.Context, name Name, last LevelNumber, self RunID) (settled bool, err error) {
	keys, err := r.list(ctx, claimPrefix(name))
	if err != nil {
		return false, err
	}
	settled = true
	for _, key := range keys {
		number, err := ParseLevelNumber(strings.TrimPrefix(key, claimPrefix(name)))
		if err != nil {
			continue // of another name, which begins alike
		}
		var c claim
		err = r.getObject(ctx, key, "claim", &c)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			settled = false
			continue
		case errors.Is(err, errBadObject):
			// Nothing but its number is known, and that is what is fenced.
			c = claim{Name: name, Number: number, Beat: defaultBeat.Seconds()}
		case err != nil:
			return false, err
		}
		if number > last {
			settled = false
			if err := r.waitDead(ctx, &c); err != nil {
				return false, err
			}
			// It may have ended meanwhile, and its number with it.
			if there, err := r.claimed(ctx, key, c.Run); !there {
				if err != nil {
					return false, err
				}
				continue
			}
			c.Name, c.Number = name, number
			if err := r.settleDead(ctx, &c, self); err != nil {
				return false, err
			}
		}
		if err := r.dropClaimKey(ctx, key, c.Run); err != nil {
			return false, err
		}
	}
	return settled, nil
}

// waitDead returns nil once a claim's process is taken for dead, or a
// *BusyError as soon as it is known to live. No clock decides what is safe:
// whoever is wrongly taken for dead is fenced and cannot commit.
func (r *Repository) waitDead(ctx context.Context, c *claim) error {
	busy := &BusyError{Name: c.Name, Who: c.who()}
	if c.Process.sameHost(r.self) {
		if c.Process.runs(c.Run, r.self) {
			return busy
		}
		return nil
	}
	before, err := r.list(ctx, beatPrefix(c.Run))
	if err != nil {
		return err
	}
	// By the clocks, it started just now: believe that it lives.
	if age := r.clock().Sub(c.Started); c.Run != 0 && age >= 0 && age < 2*c.beat() {
		return busy
	}
	look := time.NewTicker(max(c.beat()/4, time.Millisecond))
	defer look.Stop()
	end := time.Now().Add(2 * c.beat())
	r.waits(Wait{Name: c.Name, Who: c.who(), Until: end})
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
		}
		now, err := r.list(ctx, beatPrefix(c.Run))
		if err != nil {
			return err
		}
		if len(now) != len(before) || len(now) > 0 && now[len(now)-1] != before[len(before)-1] {
			return busy
		}
	}
	return nil
}

// Wait is what a run waits for before it begins: whether another one, of which it is
// not known, goes on.
type Wait struct {
	Name  Name   // "gc" for those that collect
	Who   string // for people: see BusyError
	Until time.Time
}

// OnWait has a function told of such waits. It is set before anything is begun.
func (r *Repository) OnWait(f func(Wait)) { r.onWait = f }

func (r *Repository) waits(w Wait) {
	if r.onWait != nil {
		r.onWait(w)
	}
}

// settleDead ends a dead run at its number: its level is finished if that is all
// that it lacks, else the run is fenced. Where that would leave a gap below, which
// looks like levels that were lost, an older copy of the repository was put back
// while the run took its claim: it is dropped, as the run itself would have done.
func (r *Repository) settleDead(ctx context.Context, c *claim, by RunID) error {
	last, err := r.lastNumber(ctx, c.Name)
	if err != nil {
		return err
	}
	if c.Number > last+1 {
		return r.dropClaim(ctx, c)
	}
	if _, settled, err := r.finishLevel(ctx, c, by); settled || err != nil {
		return err
	}
	return r.fence(ctx, c.Name, c.Number, c.Run, by)
}

// fence keeps a run from ever committing. It is no error if the run has
// committed already. Of a run whose claim could not be read only the number is
// known, and that is enough.
func (r *Repository) fence(ctx context.Context, name Name, n LevelNumber, run, by RunID) error {
	t := tombstone{Name: name, Number: n, Run: run, By: by, Time: time.Now().UTC()}
	err := r.putObject(ctx, levelKey(name, n), "tombstone", &t)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil && run != 0 {
		// Where the number is removed, the run may have committed: its record has been
		// collected since, and other levels may share its map.
		var removed bool
		if removed, err = r.stands(ctx, removedKey(name, n)); err == nil && !removed {
			err = r.discardMaps(ctx, run)
		}
	}
	if err != nil {
		return fmt.Errorf("fence run %s of %s: %w", run, name, err)
	}
	return nil
}

// discardMaps deletes the map packs of a run that is fenced: nothing refers to
// them, and a level record among them must never be taken for a level's.
func (r *Repository) discardMaps(ctx context.Context, run RunID) error {
	if run == 0 {
		return nil
	}
	for _, folder := range foldersOf(KindMap) {
		keys, err := r.list(ctx, folder+run.String()+"/")
		if err != nil {
			return err
		}
		if err := r.deleteAll(ctx, keys, nil); err != nil {
			return err
		}
	}
	return nil
}

// stands reports whether a key has an object, whatever is in it.
func (r *Repository) stands(ctx context.Context, key string) (bool, error) {
	_, err := r.backend.Get(ctx, key, make([]byte, 1), 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err == nil || errors.Is(err, io.EOF):
		return true, nil
	}
	return false, err
}

// claimed reports whether a key has the claim of a run. One that cannot be
// decoded may be: nobody else puts it there while it stands.
func (r *Repository) claimed(ctx context.Context, key string, run RunID) (bool, error) {
	var c struct {
		Run RunID `json:"run"`
	}
	p, err := readAll(ctx, r.backend, key, maxJSON)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, errBadObject):
		return true, nil
	case err != nil:
		return false, err
	}
	e, err := openObject(p)
	bad := err != nil || json.Unmarshal(e.Body, &c) != nil
	return bad || c.Run == run, nil
}

// checkClaim fails with ErrFenced where a run's claim is gone: another run has
// settled it, or an older copy of the repository was put back, in which what
// the run has seen and stored may not be. It comes before everything that
// counts: a commit, or a deletion of what a level may reach.
func (r *Repository) checkClaim(ctx context.Context, key string, run RunID) error {
	there, err := r.claimed(ctx, key, run)
	if err == nil && !there {
		err = fmt.Errorf("%s is gone: %w", key, ErrFenced)
	}
	return err
}

// dropClaim removes a claim that is over.
func (r *Repository) dropClaim(ctx context.Context, c *claim) error {
	return r.dropClaimKey(ctx, claimKey(c.Name, c.Number), c.Run)
}

func (r *Repository) dropClaimKey(ctx context.Context, key string, run RunID) error {
	if run != 0 {
		if err := r.dropBeats(ctx, run); err != nil {
			return err
		}
	}
	return r.backend.Delete(ctx, key)
}

// dropBeats removes what is left of a run's beats.
func (r *Repository) dropBeats(ctx context.Context, run RunID) error {
	beats, err := r.list(ctx, beatPrefix(run))
	if err != nil {
		return err
	}
	return r.deleteAll(ctx, beats, nil)
}

// keepBeating puts a beat whenever work has moved on since the last, until ctx
// ends. A beat that cannot be put is left out: at worst the run is fenced.
func (r *Repository) keepBeating(ctx context.Context, run RunID, beat time.Duration, moved func() int64) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	last := moved()
	for n := 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return
		}
		if now := moved(); now != last {
			last = now
			if r.putObject(ctx, beatKey(run, n), "beat", time.Now().UTC()) == nil {
				_ = r.backend.Delete(ctx, beatKey(run, n-1))
				n++
			}
		}
	}
}
