package store

import (
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
