//go:build cgo

package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"backy/engine/batch"
	"backy/rbd/clustertest"

	"golang.org/x/sync/errgroup"
)

// together are states that images of one pool can be in at a time.
var together = []string{
	"migration prepared", "import prepared", "in the trash", "back from the trash", "mirrored by snapshot, demoted", "format 1",
	"object map invalid", "locked by a live client", "clone v2, its parent's snapshot in the trash", "snapshot limit reached",
	"header lost", "shrunk and grown", "renamed", "made again under its name",
}

// A pool of 40 images, many of them in some state, is backed up in one run: each
// image has a level with the right bytes, or its one sentence.
func TestPoolOfStates(t *testing.T) {
	first := newStateRow(t, clustertest.Get(t))
	rows := make([]*stateRow, 40)
	kinds := make([]state, len(rows))
	for n := range rows {
		r := *first
		r.image = fmt.Sprintf("%s/i%02d", first.pool, n)
		r.rand = rand.NewChaCha8([32]byte{9, byte(n)})
		rows[n], kinds[n] = &r, states[0]
		if n < len(together) {
			kinds[n] = states[slices.IndexFunc(states, func(s state) bool { return s.name == together[n] })]
		}
		if kinds[n].create == nil {
			kinds[n].create = func(r *stateRow) { r.create(r.image) }
		}
	}
	each(rows, func(n int, r *stateRow) { kinds[n].create(r) })
	if _, code, said := first.backy("backup", "--min-age", "0", "rbd:"+first.pool); code != 0 {
		t.Fatalf("the first run: exit code %d\n%s", code, said)
	}
	each(rows, func(n int, r *stateRow) {
		if kinds[n].enter != nil {
			kinds[n].enter(r)
		}
	})
	doc, code, said := first.backy("backup", "--min-age", "0", "rbd:"+first.pool)
	if code != 6 {
		t.Errorf("exit code %d\n%s", code, said)
	}
	of := map[string]batch.Result{}
	for _, i := range doc.Images {
		of[strings.TrimPrefix(i.Image, "rbd:")] = i
	}
	each(rows, func(n int, r *stateRow) {
		i, there := of[r.image]
		want := kinds[n].want[colPool]
		switch {
		case kinds[n].name == "in the trash":
			if there {
				t.Errorf("%s: %s: %s %s", r.image, kinds[n].name, i.Result, i.Error)
			}
		case want.code == 6:
			if i.Result != batch.Failed || !regexp.MustCompile(want.says).MatchString(i.Error) || strings.Contains(i.Error, "\n") {
				t.Errorf("%s: %s: %s, %q, want %q", r.image, kinds[n].name, i.Result, i.Error, want.says)
			}
		case i.Result != batch.Done || !regexp.MustCompile(want.says).MatchString(strings.Join(i.Warnings, "\n")):
			t.Errorf("%s: %s: %s %s %q, want %q", r.image, kinds[n].name, i.Result, i.Error, i.Warnings, want.says)
		default:
			r.sameAs(i)
		}
	})
	if failed := len(slices.DeleteFunc(doc.Images, func(i batch.Result) bool { return i.Result == batch.Done })); failed != 3 {
		t.Errorf("%d images are not done, want 3\n%s", failed, said)
	}
}

// each does something about each image, a few at a time.
func each(rows []*stateRow, do func(n int, r *stateRow)) {
	var group errgroup.Group
	group.SetLimit(4)
	for n, r := range rows {
		group.Go(func() error {
			do(n, r)
			return nil
		})
	}
	_ = group.Wait() // there are none
}
