package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"backy/engine"
)

const (
	barDelay  = 500 * time.Millisecond // a run shorter than that shows no bar
	barPoll   = 200 * time.Millisecond
	barWindow = 10 * time.Second // over which a bar's rate is taken
)

// watch shows the progress of work until it returns: a bar on a terminal, else
// a line now and then.
func (p *program) watch(title string, progress *engine.Progress, work func() error) error {
	return p.watchCounting(title, progress, nil, work)
}

// watchCounting is watch for work that counts something else than bytes: text
// says how many.
func (p *program) watchCounting(title string, progress *engine.Progress, text func(n int64) string, work func() error) error {
	if p.talk.quiet {
		return work()
	}
	show := p.showLines
	// A console without a size, as serial lines have it, has no room for a bar.
	if width, height, err := term.GetSize(int(p.stderr.Fd())); err == nil && width > 0 && height > 0 && !p.talk.json {
		show = p.showBar
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { show(done, title, progress, text) })
	defer func() {
		close(done)
		wg.Wait()
	}()
	return work()
}

// showLines prints a line now and then, also while nothing moves: so that a log
// tells a slow run from a stuck one.
func (p *program) showLines(done <-chan struct{}, title string, progress *engine.Progress, counts func(int64) string) {
	tick := time.NewTicker(p.lineEvery)
	defer tick.Stop()
	pace := newPace(p.lineEvery, time.Now())
	pace.text = counts
	for {
		select {
		case <-done:
			return
		case now := <-tick.C:
			pace.note(now, progress)
			line := title + ": "
			if pace.total > 0 {
				line += fmt.Sprintf("%d %%, ", pace.percent())
			}
			p.talk.with(pace.fields()...).say("%s%s", line, pace)
		}
	}
}

// showBar draws a bar and takes it away at the end. What is said meanwhile goes
// above it.
func (p *program) showBar(done <-chan struct{}, title string, progress *engine.Progress, counts func(int64) string) {
	start := time.Now()
	select {
	case <-done:
		return
	case <-time.After(barDelay):
	}
	var text atomic.Pointer[string]
	text.Store(new(string))
	container := mpb.New(mpb.WithOutput(p.stderr), mpb.WithRefreshRate(barPoll))
	bar := container.MustAdd(0, barOrSpinner(), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(printable(title)+" ")),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return *text.Load() })))
	p.talk.through(container)
	defer func() {
		bar.Abort(true)
		container.Wait()
		p.talk.through(p.stderr)
	}()
	tick := time.NewTicker(barPoll)
	defer tick.Stop()
	pace := newPace(barWindow, start)
	pace.text = counts
	for now := time.Now(); ; {
		pace.note(now, progress)
		s := " " + pace.String()
		if pace.total > 0 {
			s = fmt.Sprintf(" %d %%, %s", pace.percent(), pace)
		}
		text.Store(&s)
		bar.SetTotal(pace.total, false)
		bar.SetCurrent(pace.done)
		select {
		case <-done:
			return
		case now = <-tick.C:
		}
	}
}

// barOrSpinner is a bar where the end is known, else something that moves.
func barOrSpinner() mpb.BarFiller {
	bar, spinner := mpb.BarStyle().Build(), mpb.SpinnerStyle().PositionLeft().Build()
	return mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		if s.Total <= 0 {
			return spinner.Fill(w, s)
		}
		return bar.Fill(w, s)
	})
}

// pace turns counters into what people want to know: how fast, how long still.
type pace struct {
	window  time.Duration
	samples []sample // oldest first, over the window
	done    int64
	total   int64
	bad     int64
	text    func(n int64) string // of what is counted; nil: bytes
}

type sample struct {
	at   time.Time
	done int64
}

func newPace(window time.Duration, start time.Time) *pace {
	return &pace{window: window, samples: []sample{{at: start}}}
}

func (p *pace) note(now time.Time, progress *engine.Progress) {
	p.done, p.total, p.bad = progress.Done.Load(), progress.Total.Load(), progress.Bad.Load()
	for len(p.samples) > 1 && now.Sub(p.samples[1].at) >= p.window {
		p.samples = p.samples[1:]
	}
	p.samples = append(p.samples, sample{now, p.done})
}

// rate is in bytes a second, over the window.
func (p *pace) rate() float64 {
	first, last := p.samples[0], p.samples[len(p.samples)-1]
	span := last.at.Sub(first.at).Seconds()
	if span <= 0 {
		return 0
	}
	return float64(last.done-first.done) / span
}

// fields are those of a line of a log.
func (p *pace) fields() []any {
	return []any{"done", p.done, "total", p.total, "bytes_per_second", int64(p.rate()), "bad_chunks", p.bad}
}

func (p *pace) percent() int { return int(100 * min(1, float64(p.done)/float64(p.total))) }

func (p *pace) String() string {
	var b strings.Builder
	rate := p.rate()
	if p.text != nil {
		b.WriteString(p.text(p.done))
		if p.total > 0 {
			fmt.Fprintf(&b, " of %d", p.total)
		}
	} else {
		b.WriteString(bytesText(p.done))
		if p.total > 0 {
			fmt.Fprintf(&b, " of %s", bytesText(p.total))
		}
		fmt.Fprintf(&b, ", %s/s", bytesText(int64(rate)))
	}
	const month = 30 * 24 * 3600 // beyond which a guess tells nothing
	if left := float64(p.total-p.done) / rate; p.total > 0 && left > 0 && left < month {
		fmt.Fprintf(&b, ", %s left", secondsText(left))
	}
	if p.bad > 0 {
		fmt.Fprintf(&b, ", %s", count(p.bad, "bad chunk"))
	}
	return b.String()
}
