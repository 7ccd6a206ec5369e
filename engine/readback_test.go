package engine_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"backy/engine"
)

// What was written is found; what another wrote over it is, too, if it is not
// little.
func TestReadback(t *testing.T) {
	const unit = 256 << 10
	rnd := rand.New(rand.NewPCG(41, 42))
	for _, units := range []int{0, 1, 3, 300, 1000} {
		disk := make([]byte, units*unit+777)
		fill(rnd, disk)
		var r engine.Readback
		for i := range units {
			if p := disk[i*unit:][:unit]; i%3 == 0 {
				clear(p)
				r.Zeroed(int64(i*unit), unit)
			} else {
				r.Wrote(p, int64(i*unit))
			}
		}
		r.Zeroed(int64(units*unit), 300) // and what is overwritten does not count
		r.Wrote(disk[units*unit:], int64(units*unit))
		r.Wrote(nil, 5)
		for range 2 {
			if err := r.Check(bytes.NewReader(disk)); err != nil {
				t.Fatalf("%d units: %v", units, err)
			}
		}
		if err := r.Check(bytes.NewReader(disk[:len(disk)/2])); err == nil {
			t.Errorf("%d units: a target that ends half-way is believed", units)
		}
		for i := range units {
			if i%10 == 0 {
				for at := range unit / 4096 {
					disk[i*unit+at*4096] ^= 1
				}
			}
		}
		disk[len(disk)-5] ^= 1
		if err := r.Check(bytes.NewReader(disk)); !errors.Is(err, engine.ErrOverwritten) {
			t.Errorf("%d units: a tenth of it is another's: %v", units, err)
		}
	}
}
