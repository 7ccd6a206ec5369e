package rbd

import (
	"context"
	"slices"
	"time"

	"backy/store"
)

// A snapshot of ours is needed as long as a later backup may diff from it, which is
// for a level that was read from this very snapshot, by the image's id and its own.
// Of those of one image and backup name the newest is needed, and only while the
// image has the place that the level records, or the name is still the one that
// it gets: after it was renamed, its backups have another name.
//
// A run that the repository does not know is over, too, once a later snapshot of
// the image has become a level of the name: who made that had the claim on the
// name after it. Else it is over if no claim stands that may be its own, since
// without it cannot commit; but a claim of another host may not be seen yet, and
// a copy of the repository never has those of the original. So its snapshot stays
// for a day. And where a record is lost, the run may have committed.

// Judge tells of snapshots what a repository knows of them: Kind, Name and Level.
// They are all of their images'. They must have been listed before, so that a run
// whose end the repository does not know has not begun meanwhile.
func Judge(ctx context.Context, repo *store.Repository, list []OwnSnapshot) error {
	j := judge{repo: repo, list: list, names: map[string][]store.Name{}, histories: map[store.Name]*store.History{}}
	used, err := repo.UsedNames(ctx)
	if err != nil {
		return err
	}
	j.used = used
	for _, name := range used {
		j.add(name)
	}
	for i := range list {
		if name := list[i].Derived; name != "" {
			j.add(name)
		}
	}
	for i := range list {
		if err := j.first(ctx, &list[i]); err != nil {
			return err
		}
	}
	if err := j.others(ctx); err != nil {
		return err
	}
	for i := range list {
		if list[i].Copy && list[i].Kind == Stray {
			list[i].Kind = Undecided
		}
	}
	return nil
}

// judge is one call of Judge.
type judge struct {
	repo      *store.Repository
	list      []OwnSnapshot
	used      []store.Name
	names     map[string][]store.Name // by what the names of their snapshots begin with
	histories map[store.Name]*store.History

	claimed map[store.RunID]bool // nil: not looked at yet
	sure    bool                 // all claims are known
	lost    *store.LostError     // nil: nothing is
}

func (j *judge) add(name store.Name) {
	prefix := ownPrefix(j.repo.ID, name)
	if !slices.Contains(j.names[prefix], name) {
		j.names[prefix] = append(j.names[prefix], name)
	}
}

func (j *judge) history(ctx context.Context, name store.Name) (*store.History, error) {
	if j.histories[name] == nil {
		h, err := j.repo.History(ctx, name)
		if err != nil {
			return nil, err
		}
		j.histories[name] = &h
	}
	return j.histories[name], nil
}

// first judges a snapshot by the backup names that it may have been made for.
func (j *judge) first(ctx context.Context, o *OwnSnapshot) error {
	o.Kind, o.Name, o.Level = Undecided, "", 0
	if o.Repository != j.repo.ID.String()[:8] {
		o.Kind = Foreign
		return nil
	}
	var histories []*store.History
	for _, name := range j.names["backy-"+o.Repository+"-"+o.hash+"-"] {
		h, err := j.history(ctx, name)
		if err != nil {
			return err
		}
		histories = append(histories, h)
	}
	if len(histories) > 0 {
		o.Name = histories[0].Name
	}
	if o.Run == 0 {
		o.Kind = j.waiting(o, histories)
		return nil
	}
	for _, h := range histories {
		if h.Over(o.Run) || o.outlived(h) {
			o.Name = h.Name
			j.made(o, h)
		}
	}
	if o.Kind != Undecided || time.Since(o.Time) < readyFor || o.Time.IsZero() {
		return nil
	}
	if over, err := j.unclaimed(ctx, o.Run); !over || err != nil {
		return err
	}
	o.Kind = Stray
	return nil
}

// outlived reports whether a level was read from a later snapshot of the image that
// a backup made.
func (o *OwnSnapshot) outlived(h *store.History) bool {
	return slices.ContainsFunc(h.Levels, func(l store.Level) bool {
		return l.Of(o.Image) && l.Origin.RBD != nil && l.Origin.RBD.Own && l.Origin.RBD.SnapshotID > o.ID
	})
}

// unclaimed reports whether a run cannot commit, for want of a claim, and has not
// committed a level that is lost.
func (j *judge) unclaimed(ctx context.Context, run store.RunID) (bool, error) {
	if j.claimed == nil {
		var err error
		if j.claimed, j.sure, err = j.repo.Claimed(ctx); err != nil {
			return false, err
		}
		if j.lost, err = j.repo.LostLevels(ctx, nil); err != nil {
			return false, err
		}
	}
	return j.sure && !j.claimed[run] && j.lost == nil, nil
}

// waiting judges a snapshot that was made ahead. Which image it was made for it
// does not say.
func (j *judge) waiting(o *OwnSnapshot, histories []*store.History) SnapshotKind {
	if o.removing() {
		return Stray
	}
	if o.making() {
		if o.Time.IsZero() || time.Since(o.Time) < readyFor {
			return Undecided
		}
		return Stray
	}
	known := false
	for _, h := range histories {
		if len(h.Levels) == 0 && len(h.Bad) == 0 && h.Name != o.Derived {
			continue
		}
		known = true
		if h.Name == o.Derived || len(h.Bad) > 0 || o.at(&h.Levels[len(h.Levels)-1]) {
			return Waiting
		}
	}
	// Of a name without levels the next backup may be the first, as long as it
	// would take the snapshot.
	if !known && (o.Time.IsZero() || time.Since(o.Time) < readyFor) {
		return Waiting
	}
	return Stray
}

// made judges a snapshot of a run that is over, by its backup name's levels.
func (j *judge) made(o *OwnSnapshot, h *store.History) {
	o.Kind = Stray
	if o.removing() {
		return
	}
	for i := range h.Levels {
		if l := &h.Levels[i]; o.of(l) {
			o.Level = l.Number
			if (h.Name == o.Derived || o.at(l)) && !j.superseded(o, h.Levels[i+1:]) {
				o.Kind = OfLevel
			}
		}
	}
}

// superseded reports whether one of the later levels of a name has a snapshot of
// ours on the same image, which is the better base.
func (j *judge) superseded(o *OwnSnapshot, later []store.Level) bool {
	for i := range later {
		l := &later[i]
		if l.Of(o.Image) && l.Origin.RBD.Own && slices.ContainsFunc(j.list, func(other OwnSnapshot) bool { return !other.removing() && other.of(l) }) {
			return true
		}
	}
	return false
}

// of reports whether a level was read from the snapshot.
func (o *OwnSnapshot) of(l *store.Level) bool {
	return l.Of(o.Image) && l.Origin.RBD != nil && l.Origin.RBD.SnapshotID == o.ID
}

// at reports whether a level records the place that the image has now.
func (o *OwnSnapshot) at(l *store.Level) bool {
	r := l.Origin.RBD
	return r != nil && r.Cluster == o.Image.Cluster && (Spec{r.Pool, r.Namespace, r.Image, ""}) == o.Spec.at("").recorded()
}

// others looks for levels of other backup names that were read from what is a
// stray by its own: somebody may have backed up such a snapshot by its name. What
// cannot be read might be one of them.
func (j *judge) others(ctx context.Context) error {
	isStray := func(o OwnSnapshot) bool { return o.Kind == Stray && !o.removing() }
	if !slices.ContainsFunc(j.list, isStray) {
		return nil
	}
	for _, name := range j.used {
		h := j.histories[name]
		if h == nil { // read for this alone
			all, err := j.repo.History(ctx, name)
			if err != nil {
				return err
			}
			h = &all
		}
		for i := range j.list {
			o := &j.list[i]
			if !isStray(*o) {
				continue
			}
			if len(h.Bad) > 0 {
				o.Kind = Undecided
			}
			for n := range h.Levels {
				if l := &h.Levels[n]; o.of(l) && !l.Origin.RBD.Own {
					o.Kind, o.Name, o.Level = OfLevel, name, l.Number
				}
			}
		}
	}
	return nil
}
