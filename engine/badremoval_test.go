package engine_test

import (
	"context"
	"slices"
	"testing"

	"backy/engine"
	"backy/store"
)

// Removals that take nothing away, since they cannot be read or are another level's,
// keep forget from nothing; a scrub of all names each until it is recovered.
func TestBadRemovals(t *testing.T) {
	ctx := context.Background()
	b, _, _ := storied(t) // of a, level 1 is removed and collected, and 2 is there
	other := make([]byte, 4<<10)
	n, err := b.Get(ctx, "levels/a/1.removed", other, 0)
	if n == 0 {
		t.Fatal(err)
	}
	for what, p := range map[string][]byte{"empty": {}, "of another level": other[:n]} {
		for _, key := range []string{"levels/a/1.removed", "levels/a/2.removed"} {
			if key == "levels/a/1.removed" && len(p) > 0 {
				continue // that is its own
			}
			harmed := b.At(len(b.Log()))
			_ = harmed.Delete(ctx, key)
			if err := harmed.Put(ctx, key, p); err != nil {
				t.Fatal(err)
			}
			r := reopen(t, harmed)
			if err := r.Unprotect(ctx, "a", 2); err != nil {
				t.Fatal(err)
			}
			report, found := scrubAll(t, r, engine.ScrubAllOptions{})
			if found == nil || len(report.Bad) != 1 || report.Bad[0].Key != key || len(report.Damaged) > 0 {
				t.Errorf("%s %s: scrub: %+v", what, key, report)
			}
			mustBackup(t, r, "a", &image{data: make([]byte, 3*chunk)})
			forgotten, err := engine.Forget(ctx, r, "a", engine.Keep{Last: 1}, engine.ForgetOptions{})
			if err != nil || !slices.Equal(forgotten.Removed(), []store.LevelNumber{2}) {
				t.Errorf("%s %s: forget: %v, %v", what, key, forgotten, err)
			}
			if levels, err := r.Levels(ctx, "a"); err != nil || len(levels) != 1 || levels[0].Number != 3 {
				t.Errorf("%s %s: levels after forget: %v, %v", what, key, levels, err)
			}
			mustGC(t, r)
			if _, err := r.Recover(ctx); err != nil {
				t.Errorf("%s %s: recover: %v", what, key, err)
			}
			if report, found := scrubAll(t, r, engine.ScrubAllOptions{}); found != nil {
				t.Errorf("%s %s: scrub after recover: %+v", what, key, report)
			}
		}
	}
}
