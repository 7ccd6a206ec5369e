package batch

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"backy/engine"
	"backy/store"
)

// lookups is how many images are looked up at a time, and snapshots made where
// they are made first: that is waiting, not work.
const lookups = 8

// releaseTime bounds giving back a claim after the run was ended.
const releaseTime = 10 * time.Second

// busyBeats is for how many beats a name may be another run's that has no
// claim in the pool. A dead one has been found out and fenced by then.
const busyBeats = 10

// Run backs up images and tells what became of each, in their order. One
// image's failure stops no other.
//
// Images that other nodes are at work on are waited for, and taken over where
// that node gives them up, so that a run without an error means: all of them
// have a level that is young enough, or need none.
//
// Errors: the context's cause where the run was ended; *FailedError.
func Run(ctx context.Context, repo *store.Repository, pool Pool, images []Image, o Options) ([]Result, error) {
	if o.Jobs == 0 {
		o.Jobs = DefaultJobs
	}
	o.Jobs = min(o.Jobs, MaxJobs)
	if o.Again == 0 {
		o.Again = 10 * time.Second
	}
	r := &run{repo: repo, pool: pool, o: o, started: time.Now(), tasks: make([]*task, len(images))}
	r.o.Backup.Budget = engine.NewBudget(o.Readers, o.Jobs)
	for n, i := range images {
		r.tasks[n] = &task{image: i, result: Result{Image: i.Label, Name: i.Name, Size: i.Size}}
	}
	r.survey(ctx)
	switch o.Snapshots {
	case Only:
		r.again(ctx, r.prepare)
	case First:
		r.prepare(ctx, r.todo())
		fallthrough
	case Each:
		r.work(ctx)
	}
	return r.results(ctx)
}

// run is one call of Run.
type run struct {
	repo    *store.Repository
	pool    Pool
	o       Options
	started time.Time
	tasks   []*task
	telling sync.Mutex
}

// task is one image on its way through a run.
type task struct {
	image    Image
	before   store.LevelNumber // the highest of its name, when the run began
	expected int64             // bytes to be read
	result   Result
	over     bool      // the result stands
	busy     time.Time // since when its name has been another run's; zero: it is not
	claimed  time.Time // since when another node has had its claim, each time it was tried; zero: it has not

	warning sync.Mutex // guards result.Warnings
}

// todo are the images that are not done with.
func (r *run) todo() (list []*task) {
	for _, t := range r.tasks {
		if !t.over {
			list = append(list, t)
		}
	}
	return list
}

// each does something for several tasks at a time, and for none after ctx ended.
func each(ctx context.Context, tasks []*task, atOnce int, f func(*task)) {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, t := range tasks {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if ctx.Err() == nil {
				f(t)
			}
			return nil
		})
	}
	_ = g.Wait() // what went wrong is in the tasks
}

// survey finds out what the repository holds, and settles what needs no work.
func (r *run) survey(ctx context.Context) {
	shared := sharers(r.tasks)
	each(ctx, r.todo(), lookups, func(t *task) {
		for _, text := range t.image.Rules.Warnings() {
			r.warner(t)("%s", text)
		}
		switch {
		case t.image.Rules.Exclude:
			t.result.Result = Excluded
		case t.image.Err != nil:
			r.failed(ctx, t, t.image.Err)
		default:
			now, err := r.lookUp(ctx, t)
			t.before, t.expected = now.last, expected(t.image, now)
			if err == nil {
				err = r.admit(ctx, t, now, shared[t.image.Name])
			}
			if err != nil {
				r.failed(ctx, t, err)
			} else {
				r.passOver(t, now)
			}
		}
		if t.result.Result != "" {
			r.end(t)
		}
	})
}

func (r *run) lookUp(ctx context.Context, t *task) (known, error) {
	h, err := r.repo.History(ctx, t.image.Name)
	return known{h.Last, h.Levels}, err
}

// passOver gives a task the result of one that needs no work: its name's newest
// level is of this image, and is young or was made by others since the run began.
func (r *run) passOver(t *task, now known) bool {
	l, ok := now.newest()
	switch {
	case !ok || !l.Of(t.image.ID):
		return false
	case l.Number > t.before:
		t.result.found(Elsewhere, l)
	case now.young(t.image.Rules.MinAgeOf(r.o.MinAge), time.Now()):
		t.result.found(Young, l)
	default:
		return false
	}
	return true
}

// passOverLate is passOver some time after the run began: the place may have
// gone to another image meanwhile.
func (r *run) passOverLate(ctx context.Context, t *task, now known) bool {
	word := t.result.Result
	if !r.passOver(t, now) {
		return false
	}
	id, err := r.pool.Identify(ctx, t.image)
	if err == nil && id == t.image.ID {
		return true
	}
	if err == nil {
		t.image.ID = id
	}
	t.result.found(word, store.Level{Size: t.image.Size})
	return false // the backup finds out what is the matter
}

// work backs up what is to be done.
func (r *run) work(ctx context.Context) {
	r.again(ctx, func(ctx context.Context, list []*task) {
		order(list)
		each(ctx, list, r.o.Jobs, func(t *task) { r.try(ctx, t) })
	})
}

// again does something for the tasks that are not done with, and comes back to
// what others were at work on until that is done too.
func (r *run) again(ctx context.Context, do func(context.Context, []*task)) {
	for todo := r.todo(); len(todo) > 0 && ctx.Err() == nil; {
		do(ctx, todo)
		if todo = r.todo(); len(todo) > 0 {
			r.tell(func(w Watcher) { w.Wait(len(todo)) })
			pause(ctx, r.o.Again)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// release gives a claim back, also after the run was ended.
func (r *run) release(ctx context.Context, c Claim) error {
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	return c.Release(late)
}

// failed gives a task the result of one that failed, or whose image is gone.
func (r *run) failed(ctx context.Context, t *task, err error) {
	if ctx.Err() != nil {
		return // the run was ended, and results says so
	}
	if there, existsErr := r.pool.Exists(ctx, t.image); existsErr == nil && !there {
		t.result.Result, t.result.Error = Gone, err.Error()
		return
	}
	t.result.fail(err)
}

// end settles a task.
func (r *run) end(t *task) {
	t.over = t.result.Result != Waiting
	r.tell(func(w Watcher) { w.End(t.image, t.result) })
}

func (r *run) tell(f func(Watcher)) {
	if r.o.Watcher == nil {
		return
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	f(r.o.Watcher)
}

func (r *run) results(ctx context.Context) ([]Result, error) {
	list := make([]Result, len(r.tasks))
	failed := &FailedError{Images: len(list)}
	for n, t := range r.tasks {
		if !t.over {
			t.result.Result = Ended
		}
		if t.result.Result == Failed {
			failed.Failed++
		}
		list[n] = t.result
	}
	switch {
	case ctx.Err() != nil:
		return list, context.Cause(ctx)
	case failed.Failed > 0:
		return list, failed
	}
	return list, nil
}
