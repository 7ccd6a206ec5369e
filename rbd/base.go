package rbd

import "backy/store"

// choose finds the newest level that can be diffed from: its snapshot is
// still the one that was recorded, and not newer than to. levels are newest
// first; none up to distrust is taken, and none of an image that was migrating.
func choose(at store.ImageID, list []snapshot, to snapshot, levels []store.Level, distrust store.LevelNumber) (level *store.Level, from snapshot) {
	for i := range levels {
		l, o := &levels[i], levels[i].Origin.RBD
		if l.Number <= distrust || o == nil || o.Migrating || o.ID() != at {
			continue
		}
		s, ok := named(list, o.Snapshot)
		if ok && s.id == o.SnapshotID && s.id <= to.id && s.size == l.Size {
			return l, s
		}
	}
	return nil, snapshot{}
}
