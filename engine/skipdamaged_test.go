package engine_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"backy/engine"
)

// A restore that skips what is damaged writes all else, zeros in its places, and
// names them: bad chunks, and what hangs below bad map nodes. One that does not
// leaves the target alone once the damage is known.
func TestSkipDamaged(t *testing.T) {
	ctx := context.Background()
	r, b := newRepository(t, chunk)
	data := make([]byte, 64*70*chunk+100)
	for _, part := range [][2]int{{0, 200}, {64 * 20, 64*21 + 5}, {64 * 69, 64 * 70}} {
		fill(rand.New(rand.NewPCG(uint64(part[0]), 1)), data[part[0]*chunk:part[1]*chunk])
	}
	level := mustBackup(t, r, "image", &image{data: data})
	key, p := object(t, b, "data/")
	p[len(p)/2] ^= 1
	overwrite(t, b, key, p)
	for _, folder := range []string{"maps/", "maps2/"} {
		key, p := object(t, b, folder)
		p[72+3*56+2] ^= 1 // the table's entry of a node, and the frame behind it
		p[len(p)*2/3] ^= 1
		overwrite(t, b, key, p)
	}
	for _, old := range [][]byte{nil, bytes.Repeat([]byte{0xee}, len(data))} {
		d := &disk{old: old}
		report, err := engine.Restore(ctx, reopen(t, b), level, d, engine.RestoreOptions{SkipDamaged: true})
		var damaged *engine.DamagedError
		if !errors.As(err, &damaged) || !d.finished || d.aborted || len(report.Damaged) < 2 {
			t.Fatalf("%v, %+v", err, report)
		}
		want := bytes.Clone(data)
		for _, e := range report.Damaged {
			clear(want[e.Offset : e.Offset+e.Length])
		}
		if !bytes.Equal(d.data, want) {
			t.Errorf("other bytes at %s", firstDifference(d.data, want))
		}
		var lost int64
		for _, e := range report.Damaged {
			lost += e.Length
		}
		if bytes.Equal(want, data) || lost > 64*chunk*3 {
			t.Errorf("skipped %d bytes: %+v", lost, report.Damaged)
		}
		var streamed bytes.Buffer
		report, err = engine.Stream(ctx, reopen(t, b), level, &streamed, engine.RestoreOptions{SkipDamaged: true})
		if !errors.As(err, &damaged) || !bytes.Equal(streamed.Bytes(), want) || len(report.Damaged) != len(damaged.Extents) {
			t.Errorf("streamed: %v, %+v", err, report)
		}
	}
	d := &disk{}
	_, err := engine.Restore(ctx, reopen(t, b), level, d, engine.RestoreOptions{})
	var damaged *engine.DamagedError
	if !errors.As(err, &damaged) || len(damaged.Extents) == 0 || d.data != nil {
		t.Errorf("not to be skipped: %v", err)
	}
	// The root itself is lost: all of it is skipped, at once.
	for _, folder := range []string{"maps/", "maps2/"} {
		for _, key := range keys(t, b, folder) {
			overwrite(t, b, key, []byte("gone"))
		}
	}
	d = &disk{old: bytes.Repeat([]byte{1}, len(data))}
	report, err := engine.Restore(ctx, reopen(t, b), level, d, engine.RestoreOptions{SkipDamaged: true})
	if !errors.As(err, &damaged) || len(report.Damaged) != 1 || report.Damaged[0].Length != int64(len(data)) || !bytes.Equal(d.data, make([]byte, len(data))) {
		t.Errorf("without a root: %v, %+v", err, report)
	}
}
