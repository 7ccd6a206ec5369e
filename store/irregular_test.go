package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a backend with something in the place of objects that is none.
type pipes struct {
	Backend
	prefix string
}

func (b pipes) Get(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if strings.HasPrefix(key, b.prefix) {
		if _, err := b.Backend.Get(ctx, key, p, off); !errors.Is(err, fs.ErrNotExist) {
			return 0, ErrIrregular
		}
	}
	return b.Backend.Get(ctx, key, p, off)
}

// Whoever waits for what it does not know says so at once: for what, and until when.
func TestWaitsAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		bad bool
		who string
	}{
		"a claim that cannot be read": {true, "its claim cannot be read, so which process it is, and since when, is unknown"},
		"another host's":              {false, "process 7 on gone since "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := testRepository(t, 64)
				var told []Wait
				began, waited := time.Now(), time.Duration(-1)
				r.OnWait(func(w Wait) { told, waited = append(told, w), time.Since(began) })
				dead := plant(t, r, process{Host: "gone", PID: 7}, began.Add(-time.Hour), defaultBeat)
				if c.bad {
					r.backend = pipes{r.backend, claimKey(dead.Name, dead.Number)}
				}
				w := begin(t, r, dead.Name)
				if len(told) != 1 || waited != 0 || told[0].Name != dead.Name || !strings.HasPrefix(told[0].Who, c.who) || told[0].Until.Before(time.Now().Add(-time.Second)) || told[0].Until.After(time.Now()) {
					t.Errorf("after %s of %s: %+v", waited, time.Since(began), told)
				}
				if err := w.Abort(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The reserve means nothing, so what stands in its place is replaced.
func TestIrregularReserve(t *testing.T) {
	r := testRepository(t, 64)
	b := r.backend
	now := func() (e reserve) {
		t.Helper()
		if err := r.getObject(t.Context(), reserveKey, "reserve", &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	r.putReserve(t.Context())
	before := now()
	r.putReserve(t.Context())
	if !bytes.Equal(now().Filler, before.Filler) {
		t.Error("a reserve was replaced that is one")
	}
	r.backend = pipes{b, reserveKey}
	r.putReserve(t.Context())
	if r.backend = b; bytes.Equal(now().Filler, before.Filler) {
		t.Error("what is no regular file stays")
	}
}

// A claim that is no object is one that cannot be read: its number is fenced, and
// the next run goes on.
func TestIrregularClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := testRepository(t, 64)
		dead := plant(t, r, process{Host: "gone"}, time.Now(), time.Second)
		r.backend = pipes{r.backend, claimKey(dead.Name, dead.Number)}
		l, err := commit(t, r, begin(t, r, dead.Name))
		if err != nil || l.Number != dead.Number+1 {
			t.Errorf("level %s: %v", l.Number, err)
		}
		if left := claims(t, r); len(left) > 0 {
			t.Errorf("left in work/: %q", left)
		}
	})
}
