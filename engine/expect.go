package engine

import (
	"context"
	"sync"
	"time"
)

// expectDelay is how long a run goes on before it asks how much there is to be
// done: most increments are over by then.
const expectDelay = time.Second

// expect tells Progress how much there is to be done, at once or, where that
// takes time to find out, in the background until enough is called. It does no
// harm where the source cannot say.
func (b *backup) expect(ctx context.Context) (enough func()) {
	s, total := b.state, &b.o.Progress.Total
	if s.Expect == nil || s.Expected != 0 {
		total.Store(s.Expected)
		if s.Expected == 0 {
			total.Store(s.Size)
		}
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(expectDelay):
		}
		if n, err := s.Expect(ctx); err == nil && ctx.Err() == nil {
			total.Store(n)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}
