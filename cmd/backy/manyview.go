package main

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"backy/engine"
	"backy/engine/batch"
)

// manyView shows a run over many images: on a terminal a bar for each that is
// at work and one for all, else a line now and then. It implements
// batch.Watcher.
type manyView struct {
	p     *program
	title string
	total int

	mu      sync.Mutex
	ended   int
	begun   int
	atWork  []*shownImage
	gone    int64 // bytes done of images that are not at work any more
	all     *shownImage
	bars    *mpb.Progress // nil where there is no terminal
	waiting int           // last told
}

type shownImage struct {
	label    string
	progress *engine.Progress
	pace     *pace
	bar      *mpb.Bar
	text     atomic.Pointer[string]
}

func (p *program) newManyView(title string, total int) *manyView {
	return &manyView{p: p, title: title, total: total}
}

// watch shows progress until work returns.
func (v *manyView) watch(work func() error) error {
	every, show := v.p.lineEvery, v.line
	if width, height, err := term.GetSize(int(v.p.stderr.Fd())); err == nil && width > 0 && height > 0 && !v.p.talk.quiet && !v.p.talk.json {
		every, show = barPoll, v.draw
		v.bars = mpb.New(mpb.WithOutput(v.p.stderr), mpb.WithRefreshRate(barPoll))
		v.p.talk.through(v.bars)
		defer func() {
			v.bars.Wait()
			v.p.talk.through(v.p.stderr)
		}()
	}
	v.all = v.add("", &engine.Progress{})
	v.all.pace = newPace(max(every, barWindow), time.Now())
	if v.all.bar != nil {
		defer v.all.bar.Abort(true)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				show(now)
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	return work()
}

// Begin implements batch.Watcher.
func (v *manyView) Begin(i batch.Image, p *engine.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.atWork = append(v.atWork, v.add(strings.TrimPrefix(i.Label, rbdScheme), p))
}

// add makes what shows an image, or without a label all of them.
func (v *manyView) add(label string, p *engine.Progress) *shownImage {
	s := &shownImage{label: label, progress: p, pace: newPace(barWindow, time.Now())}
	s.text.Store(new(string))
	if v.bars != nil {
		const room = 30
		v.begun++
		title, priority := shorten(printable(label), room), v.begun
		if label == "" {
			title, priority = printable(v.title), math.MaxInt // below the others
		}
		s.bar = v.bars.MustAdd(0, barOrSpinner(), mpb.BarRemoveOnComplete(), mpb.BarPriority(priority),
			mpb.PrependDecorators(decor.Name(title+" ")),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return *s.text.Load() })))
	}
	return s
}

// End implements batch.Watcher.
func (v *manyView) End(i batch.Image, r batch.Result) {
	v.mu.Lock()
	defer v.mu.Unlock()
	label := strings.TrimPrefix(i.Label, rbdScheme)
	if r.Result != batch.Waiting {
		v.ended++
	}
	for n, s := range v.atWork {
		if s.label == label {
			v.gone += s.progress.Done.Load()
			v.atWork = append(v.atWork[:n], v.atWork[n+1:]...)
			if s.bar != nil {
				s.bar.Abort(true)
			}
			break
		}
	}
	v.tell(i, r)
}

func (v *manyView) tell(i batch.Image, r batch.Result) {
	t := v.p.talk.with("image", i.Label, "name", i.Name, "result", r.Result)
	switch r.Result {
	case batch.Done:
		t.fields = append(t.fields, levelFields(r.New)...)
		t.say("%s", backupSummary(*r.New))
	case batch.Failed:
		err := r.Err
		if !strings.Contains(err.Error(), i.Label) {
			err = fmt.Errorf("%s: %w", i.Label, err)
		}
		t.fail(err)
	case batch.Gone:
		t.say("%s: it was removed meanwhile", i.Label)
	case batch.Prepared:
		t.detail("%s: its snapshot is made", i.Label)
	case batch.Young:
		t.detail("%s: level %s of %s is young enough", i.Label, r.Level, timeText(r.Time))
	case batch.Elsewhere:
		if r.Level == 0 {
			t.detail("%s: another node has made its snapshot, and backs it up", i.Label)
			break
		}
		t.detail("%s: another node made level %s", i.Label, r.Level)
	case batch.Excluded:
		t.detail("%s: excluded by its metadata", i.Label)
	}
}

// Warn implements batch.Watcher.
func (v *manyView) Warn(i batch.Image, text string) {
	v.p.talk.with("image", i.Label, "name", i.Name).warn("%s: %s", i.Label, text)
}

// Wait implements batch.Watcher.
func (v *manyView) Wait(images int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if images != v.waiting {
		v.p.talk.say("waiting for other nodes, which are at work on %s", count(int64(images), "image"))
	}
	v.waiting = images
}

// note looks at all counters.
func (v *manyView) note(now time.Time) {
	var sum engine.Progress
	sum.Done.Store(v.gone)
	for _, s := range v.atWork {
		s.pace.note(now, s.progress)
		sum.Done.Add(s.pace.done)
	}
	v.all.pace.note(now, &sum)
}

func (v *manyView) sofar() string {
	return fmt.Sprintf("%d of %s, %s", v.ended, count(int64(v.total), "image"), v.all.pace)
}

// draw brings the bars up to date.
func (v *manyView) draw(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note(now)
	for _, s := range v.atWork {
		s.set(" "+s.pace.String(), s.pace.done, s.pace.total)
	}
	v.all.set(" "+v.sofar(), int64(v.ended), int64(v.total))
}

func (s *shownImage) set(text string, done, total int64) {
	s.text.Store(&text)
	s.bar.SetTotal(total, false)
	s.bar.SetCurrent(done)
}

// line prints how far the run is.
func (v *manyView) line(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.note(now)
	line, comma := v.title+": "+v.sofar(), ";"
	for _, s := range v.atWork {
		if s.pace.total > 0 {
			line += fmt.Sprintf("%s %s %d %%", comma, s.label, s.pace.percent())
			comma = ","
		}
	}
	v.p.talk.with(append(v.all.pace.fields(), "images", v.total, "images_done", v.ended)...).say("%s", line)
}
