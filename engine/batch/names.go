package batch

import (
	"context"

	"backy/store"
)

// Two images of a run may have one backup name, by a template that leaves out
// what tells them apart. Neither joins the other's levels silently: the image
// that the name's newest level was read from goes on, and the others are
// refused; if it is none of them, all are.

// sharers are the tasks that want to be backed up under one name.
func sharers(tasks []*task) map[store.Name][]*task {
	m := map[store.Name][]*task{}
	for _, t := range tasks {
		if t.image.Err == nil && !t.image.Rules.Exclude {
			m[t.image.Name] = append(m[t.image.Name], t)
		}
	}
	return m
}

// admit refuses an image whose backup name belongs to another one: of this run,
// *SameNameError, or by the name's newest level.
func (r *run) admit(ctx context.Context, t *task, now known, sharers []*task) error {
	newest, any := now.newest()
	mine := any && newest.Of(t.image.ID)
	var clash *SameNameError
	for _, other := range sharers {
		theirs := any && newest.Of(other.image.ID)
		if other == t || mine && !theirs {
			continue
		}
		if clash == nil || theirs {
			clash = &SameNameError{Name: t.image.Name, A: t.image.Label, B: other.image.Label}
		}
		if theirs {
			clash.Level = newest.Number
		}
	}
	if clash != nil {
		return clash
	}
	if !any || mine {
		return nil
	}
	return r.pool.Admit(ctx, t.image, &newest)
}
