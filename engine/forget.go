package engine

import (
	"context"
	"fmt"
	"slices"

	"backy/store"
)

// ForgetOptions are the choices of Forget. The zero value works.
type ForgetOptions struct {
	DryRun bool // remove nothing, and refuse what could not be removed

	// Made is the level that the run has just made, which stays; 0: none.
	Made store.LevelNumber

	// Rules are those of the image's metadata as it is now; nil: unknown. They
	// and those that the newest level recorded add to what is kept.
	Rules *Rules

	// MetadataMayKeepLess lets them take the place of the policy's rules, so
	// that whoever may write an image's metadata can have its levels removed.
	MetadataMayKeepLess bool

	Warn Warn // of times that are not believed; may be nil
}

// Forgotten is what Forget did.
type Forgotten struct {
	Decisions []Decision // about each level, newest first

	// Unclear is why nothing was removed, whatever the policy says: what of the
	// image's metadata is not understood. nil: the policy was applied.
	Unclear []string
}

// Removed are the numbers of the levels that go, newest first.
func (f *Forgotten) Removed() (numbers []store.LevelNumber) {
	for _, d := range f.Decisions {
		if !d.Keep {
			numbers = append(numbers, d.Level.Number)
		}
	}
	return numbers
}

// Forget removes the levels of a name that a policy does not keep.
func Forget(ctx context.Context, repo *store.Repository, name store.Name, k Keep, o ForgetOptions) (f Forgotten, err error) {
	if o.Warn == nil {
		o.Warn = func(string, ...any) {}
	}
	if err := k.Validate(); err != nil {
		return f, err
	}
	levels, err := repo.Levels(ctx, name)
	if err != nil {
		// Which of the others are to stay depends on those that cannot be read.
		return f, fmt.Errorf("forget levels of %s: %w", name, err)
	}
	marked, err := repo.Protected(ctx, name)
	if err != nil {
		return f, err
	}
	protected := map[store.LevelNumber]bool{}
	for i := range levels {
		protected[levels[i].Number] = marked.Has(&levels[i])
	}
	j := judge{
		keep: k, o: o, levels: newestFirst(levels), dating: k.date(levels),
		protected: func(n store.LevelNumber) bool { return protected[n] },
	}
	if f, err = j.judge(); err != nil {
		return f, fmt.Errorf("forget levels of %s: %w", name, err)
	}
	j.warn(name, &f)
	remove := f.Removed()
	switch {
	case len(remove) == 0:
		return f, nil
	case o.DryRun:
		return f, repo.CheckRemove(ctx, name, remove)
	}
	return f, repo.Remove(ctx, name, remove)
}

// judge is one call of Forget.
type judge struct {
	keep      Keep
	o         ForgetOptions
	levels    []store.Level // newest first
	dating    *Dating
	protected func(store.LevelNumber) bool
}

func (j *judge) judge() (f Forgotten, err error) {
	recorded := newestRules(j.levels)
	for _, r := range []*Rules{j.o.Rules, recorded} {
		if r != nil {
			f.Unclear = append(f.Unclear, r.Unclear...)
		}
	}
	slices.Sort(f.Unclear)
	if f.Unclear = slices.Compact(f.Unclear); len(f.Unclear) > 0 {
		f.Decisions = j.all(byUnclear)
		return f, nil
	}
	var more []Keep
	run := j.keep
	for _, r := range []*Rules{recorded, j.o.Rules} { // what is known now goes last
		switch {
		case r == nil:
		case j.o.MetadataMayKeepLess:
			run = r.over(j.keep)
		default:
			more = append(more, r.Keep())
		}
	}
	if err := run.Validate(); err != nil {
		return f, fmt.Errorf("with the rules of the image's metadata: %w", err)
	}
	f.Decisions = run.decide(j.levels, j.dating, j.protected)
	for _, k := range more {
		if k == (Keep{}) {
			continue
		}
		k.Location = j.keep.Location
		for i, d := range k.decide(j.levels, j.dating, j.protected) {
			f.Decisions[i].add(d)
		}
	}
	for i := range f.Decisions {
		if d := &f.Decisions[i]; d.Level.Number == j.o.Made && !d.Keep {
			d.Keep, d.Reasons = true, []string{byMade}
		}
	}
	return f, nil
}

// all keeps everything.
func (j *judge) all(reason string) []Decision {
	decisions := make([]Decision, len(j.levels))
	for i, l := range j.levels {
		decisions[i] = Decision{Level: l, Keep: true, Reasons: []string{reason}}
	}
	return decisions
}

func (j *judge) warn(name store.Name, f *Forgotten) {
	for _, text := range j.dating.Sentences() {
		j.o.Warn("%s %s; no policy removes what is dated so, nor counts it", name, text)
	}
	if len(f.Unclear) == 0 && slices.ContainsFunc(f.Decisions, func(d Decision) bool { return d.keepsBy(byJump) || d.keepsBy("metadata-"+byJump) }) {
		j.o.Warn("%s: after an unusually long pause, --keep-within also keeps the levels before it, until those after it cover its time: is this host's clock right?", name)
	}
}
