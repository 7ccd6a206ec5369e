package rbd

import "backy/store"

// place is where a snapshot is. Together with the snapshot's id and name it
// makes a diff base; no part of it alone does.
type place struct {
	cluster string // fsid
	pool    int64
	image   string // id
}

// choose finds the newest level that can be diffed from: its snapshot is
// still the one that was recorded, and not newer than to. levels are newest
// first; none up to distrust is taken.
func choose(at place, list []snapshot, to snapshot, levels []store.Level, distrust store.LevelNumber) (level *store.Level, from snapshot) {
	for i := range levels {
		l, o := &levels[i], levels[i].Origin.RBD
		if l.Number <= distrust || o == nil || at != (place{o.Cluster, o.PoolID, o.ImageID}) {
			continue
		}
		s, ok := named(list, o.Snapshot)
		if ok && s.id == o.SnapshotID && s.id <= to.id && s.size == l.Size {
			return l, s
		}
	}
	return nil, snapshot{}
}
