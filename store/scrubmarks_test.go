package store

import (
	"testing"
	"time"
)

// A pack that a host with a clock ahead has checked still has its turn.
func TestChecksOfTheFuture(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	at := func(t time.Time) uint32 { return uint32(t.Unix()) }
	c := &Checks{repo: &Repository{clock: func() time.Time { return now }}, rows: map[string]map[RunID][]checkedRow{}}
	ago, soon, later := at(now.Add(-time.Hour)), at(now.Add(time.Minute)), at(now.AddDate(10, 0, 0))
	c.add(packFolders[0], 1, checkedRow{0, 0, 0, ago, soon}, checkedRow{1, 1, 0, later, ago}, checkedRow{2, 2, 0, later, later}, checkedRow{3, 3, 0, soon, 0})
	for _, quick := range []bool{false, true} {
		want := []uint32{ago, 0, 0, soon}
		if quick {
			want = []uint32{soon, ago, 0, soon}
		}
		list := make([]PackObject, len(want))
		for i := range list {
			list[i].ID.Run, list[i].ID.Seq = 1, uint32(i)
		}
		c.Apply(list, quick)
		for i := range want {
			if list[i].Checked != want[i] {
				t.Errorf("quick %v: pack %d was checked at %d, want %d", quick, i, list[i].Checked, want[i])
			}
		}
	}
}
