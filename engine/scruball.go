package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"backy/hints"
	"backy/store"
)

// ScrubAllOptions are the choices of a scrub of a whole repository. The zero
// value checks everything by its checksums.
type ScrubAllOptions struct {
	Quick       bool          // packs by the CRC of what they store, without decompressing
	Percent     float64       // of the chunks of each pack, at random; 0 or 100: all
	MaxDuration time.Duration // stop after so long, having taken the longest unchecked packs first; 0: check all
	Readers     int           // packs in work at a time; 0: 8
	Rate        *Rate         // caps reading packs; may be nil
	Progress    *Progress     // may be nil
	Maps        *store.GCProgress
	Warn        Warn // of what does not end a scrub; may be nil
}

// LevelDamage is what a scrub found bad of one level.
type LevelDamage struct {
	Name    store.Name
	Level   store.LevelNumber
	Extents []hints.Extent
}

// ScrubAllReport is what a scrub of a whole repository found.
type ScrubAllReport struct {
	Levels  int64               // there are
	Objects int64               // checked that are no packs
	Packs   int64               // checked, copies of map packs counted each
	Left    int64               // packs that there was no time for
	Checked int64               // chunks, map nodes and copies of level records
	Bytes   int64               // read of packs
	Damaged []LevelDamage       // levels of which something is bad
	Bad     []store.ObjectError // other objects that are bad, removals that name no level of theirs among them
	Lost    *store.LostError    // levels whose records are lost; nil: none
	Copies  int64               // bad copies of map nodes whose twins are good
	Tables  int64               // packs to be written anew: with a bad table, a missing copy, or a chunk that an older generation still has
	Unused  int64               // bad chunks that no level needs
	Oldest  time.Time           // when the longest unchecked pack was checked; zero: never
	Seconds float64
}

// DamagedRepositoryError tells that a scrub of all found damage.
type DamagedRepositoryError struct{ Report *ScrubAllReport }

// Unwrap gives access to what is lost.
func (e *DamagedRepositoryError) Unwrap() error {
	if e.Report.Lost == nil {
		return nil
	}
	return e.Report.Lost
}

func (e *DamagedRepositoryError) Error() string {
	r := e.Report
	if len(r.Damaged) > 0 {
		return fmt.Sprintf("damaged: something of %d of %d levels cannot be read", len(r.Damaged), r.Levels)
	}
	if r.Lost != nil {
		return fmt.Sprintf("damaged: %v", r.Lost)
	}
	if len(r.Bad) > 0 {
		s := "damaged: " + r.Bad[0].Error()
		if n := len(r.Bad) - 1; n > 0 {
			s += fmt.Sprintf("; and %d more", n)
		}
		return s
	}
	return "damaged: copies are bad whose twins are good; nothing is lost"
}

// scrubAll is one run of ScrubAll.
type scrubAll struct {
	repo   *store.Repository
	o      ScrubAllOptions
	survey *store.Survey
	list   []store.PackObject
	order  []int32 // of list, in which it is taken
	done   []bool

	mu     sync.Mutex // guards the report and done
	report ScrubAllReport
}

// ScrubAll checks a whole repository: what its levels reach is found by reading
// each distinct map node once, then the packs are read, each from front to back,
// several at a time. It writes down what is bad, for the next backups to mend,
// remembers which packs were checked, and returns the report with a
// *DamagedRepositoryError, or nil.
//
// What is written, removed or collected meanwhile is no damage.
func ScrubAll(ctx context.Context, repo *store.Repository, o ScrubAllOptions) (ScrubAllReport, error) {
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	started := time.Now()
	s := &scrubAll{repo: repo, o: o}
	err := s.run(ctx, started)
	r := &s.report
	r.Seconds = time.Since(started).Seconds()
	if err != nil {
		return *r, err
	}
	if len(r.Damaged)+len(r.Bad) > 0 || r.Copies+r.Tables > 0 || r.Lost != nil {
		return *r, &DamagedRepositoryError{Report: r}
	}
	return *r, nil
}

func (s *scrubAll) run(ctx context.Context, started time.Time) (err error) {
	if s.survey, err = s.repo.Survey(ctx, s.o.Maps); err != nil {
		return err
	}
	s.report.Levels = int64(len(s.survey.Levels) + len(s.survey.Records))
	s.report.Bad = s.survey.Records
	s.report.Objects, err = s.repo.CheckObjects(ctx, func(bad store.ObjectError) {
		if !slices.ContainsFunc(s.survey.Records, func(r store.ObjectError) bool { return r.Key == bad.Key }) {
			s.report.Bad = append(s.report.Bad, bad)
		}
	})
	if err != nil {
		return err
	}
	removals, err := s.repo.BadRemovals(ctx)
	if err != nil {
		return err
	}
	for _, b := range removals {
		known := func(bad store.ObjectError) bool { return bad.Key == b.Key() }
		if !slices.ContainsFunc(s.report.Bad, known) {
			s.report.Bad = append(s.report.Bad, store.ObjectError{Key: b.Key(), Err: b.Reason()})
		}
	}
	if s.report.Lost, err = s.repo.LostLevels(ctx, nil); err != nil {
		return err
	}
	if s.list, err = s.survey.Packs(ctx); err != nil {
		return err
	}
	if s.report.Tables, err = s.survey.NoteMissing(ctx); err != nil {
		return err
	}
	checks, err := s.repo.Checks(ctx)
	if err != nil {
		return err
	}
	checks.Apply(s.list, s.o.Quick)
	s.plan()
	err = s.read(ctx, started)
	if s.share() == 0 {
		// What was checked is remembered, however the run ends.
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		err = errors.Join(err, s.o.Warn.unnoted(cleanup, checks.Save(cleanup, s.list, s.done, s.o.Quick, started)))
	}
	if err != nil {
		return err
	}
	if s.survey.Suspected() {
		if err := s.survey.Confirm(ctx, s.lost); err != nil {
			return err
		}
		s.report.Tables += s.survey.Rescued
	}
	return s.o.Warn.unnoted(ctx, s.markLevels(ctx, started))
}

// share is what part of the chunks is checked; 0: all.
func (s *scrubAll) share() float64 {
	if s.o.Percent <= 0 || s.o.Percent >= 100 {
		return 0
	}
	return s.o.Percent / 100
}

// plan chooses the order: as they were written, or the longest unchecked first.
func (s *scrubAll) plan() {
	s.done = make([]bool, len(s.list))
	s.order = make([]int32, len(s.list))
	var total int64
	for i := range s.order {
		s.order[i] = int32(i)
		total += s.list[i].Size
	}
	s.o.Progress.Total.Store(total)
	if s.o.MaxDuration > 0 {
		slices.SortStableFunc(s.order, func(a, b int32) int { return cmp.Compare(s.list[a].Checked, s.list[b].Checked) })
	}
}

// read checks the packs until all are or the time is over. One at least is
// checked, so that every run comes further.
func (s *scrubAll) read(ctx context.Context, started time.Time) error {
	next := 0
	take := func() (int, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if next == len(s.order) || next > 0 && s.o.MaxDuration > 0 && time.Since(started) >= s.o.MaxDuration {
			return 0, false
		}
		next++
		return int(s.order[next-1]), true
	}
	g, gctx := errgroup.WithContext(ctx)
	for range workers(s.o.Readers) {
		g.Go(func() error {
			for {
				i, ok := take()
				if !ok {
					return nil
				}
				if err := s.check(gctx, i); err != nil {
					return err
				}
			}
		})
	}
	err := g.Wait()
	s.report.Left = int64(len(s.order) - next)
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

func (s *scrubAll) check(ctx context.Context, i int) error {
	o := s.list[i]
	if err := s.o.Rate.wait(ctx, o.Size); err != nil {
		return err
	}
	got, err := s.survey.Check(ctx, o, store.PackCheck{Quick: s.o.Quick, Share: s.share()})
	if err != nil {
		return fmt.Errorf("check pack %s: %w", o.ID, err)
	}
	s.o.Progress.Done.Add(o.Size)
	s.o.Progress.Read.Add(got.Bytes)
	s.o.Progress.Bad.Add(got.Bad + got.Copies)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.report
	r.Bytes += got.Bytes
	if got.Gone {
		return nil
	}
	s.done[i] = true
	r.Packs++
	r.Checked += got.Chunks
	r.Copies += got.Copies
	r.Unused += got.Unused
	if got.Table != nil {
		r.Tables++
	}
	return nil
}

func (s *scrubAll) lost(l *store.Level, lost []store.Lost) error {
	d := LevelDamage{Name: l.Name, Level: l.Number}
	for _, at := range lost {
		d.Extents = append(d.Extents, extentOf(l, at.First, at.Count))
	}
	d.Extents = hints.Normalize(d.Extents)
	s.report.Damaged = append(s.report.Damaged, d)
	return nil
}

// markLevels notes which levels have been checked whole, now or by the runs
// before this one that took the other packs.
func (s *scrubAll) markLevels(ctx context.Context, started time.Time) error {
	since := started
	for i := range s.list {
		if s.done[i] && s.share() == 0 {
			continue
		}
		if s.list[i].Checked == 0 {
			return nil
		}
		if at := time.Unix(int64(s.list[i].Checked), 0); at.Before(since) {
			since = at
		}
	}
	s.report.Oldest = since.UTC()
	if s.o.Quick || s.share() != 0 {
		return nil
	}
	var well []store.SurveyedLevel
	for _, l := range s.survey.Levels {
		bad := func(d LevelDamage) bool { return d.Name == l.Name && d.Level == l.Number }
		if !l.Committed.Truncate(time.Second).After(since) && !slices.ContainsFunc(s.report.Damaged, bad) {
			well = append(well, l)
		}
	}
	return s.repo.MarkAllScrubbed(ctx, well, since)
}
