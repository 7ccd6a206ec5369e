package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// Two levels are lost whose numbers others have taken. The first one's map cannot be
// read, so the number that it was to get is given up below the second one's: no claim
// of that number is left.
func TestRecoverDropsClaimsOfGivenNumbers(t *testing.T) {
	ctx := context.Background()
	x := newHalting(t)
	h, _, r := x.host(1)
	r.packSizes[KindMap] = 1
	broken := x.write(h, r, "a", 1, 2)
	x.write(h, r, "a", 3, 4, 5)
	x.lose("levels/a/")
	x.write(h, r, "a", 6)
	x.write(h, r, "a", 7, 8)
	for _, folder := range foldersOf(KindMap) {
		x.lose(packKey(folder, broken.Root.Pack, 0))
	}
	recovered, err := r.Recover(ctx)
	var gone *UnrecoverableError
	if !errors.As(err, &gone) || len(recovered) != 1 || recovered[0].Number != 4 || fmt.Sprint(recovered[0].Absent) != "[3]" {
		t.Fatalf("recovered %+v: %v", recovered, err)
	}
	if claimed, err := r.recoverClaims(ctx, ""); err != nil || len(claimed) > 0 {
		t.Errorf("claimed still: %v, %v", claimed, err)
	}
	if given, err := r.Abandon(ctx); err != nil || len(given) != 1 || given[0].Run != broken.Run {
		t.Errorf("given up: %v, %v", given, err)
	}
	for range 2 {
		if err := <-x.gc(r); err != nil {
			t.Error(err)
		}
	}
	x.whole("a")
	x.w.checkStock(ctx, r)
}
