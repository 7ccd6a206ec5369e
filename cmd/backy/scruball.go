package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"backy/engine"
	"backy/store"
)

func (p *program) scrubAll(ctx context.Context, arg string, f scrubFlags) error {
	repo, err := p.openGiven(ctx, arg)
	if err != nil {
		return err
	}
	p.metrics.about(repo)
	p.metrics.all = true
	var progress engine.Progress
	var report engine.ScrubAllReport
	err = p.watch("scrub", &progress, func() (err error) {
		report, err = engine.ScrubAll(ctx, repo, engine.ScrubAllOptions{
			Quick: f.quick, Percent: float64(f.percent), MaxDuration: time.Duration(f.maxDuration), Readers: f.readers,
			Rate: f.limit.rate(), Progress: &progress, Warn: p.talk.warn,
		})
		return err
	})
	p.report.ScrubAll = newScrubAllReport(report)
	for _, d := range report.Damaged {
		p.talk.with("name", d.Name, "level_number", d.Level).say("%v", &engine.DamagedError{Name: d.Name, Level: d.Level, Extents: d.Extents})
	}
	below := false
	for _, bad := range report.Bad {
		p.talk.say("%v", &bad)
		below = below || strings.HasPrefix(bad.Key, "levels/")
	}
	if report.Lost != nil {
		for _, l := range report.Lost.Levels {
			p.talk.with("name", l.Name, "level_number", l.Number).say("%s: its record is lost", l)
		}
	}
	if report.Lost != nil || below {
		err = withHint(err, p.recoverLine())
	}
	if report.Unused > 0 {
		p.talk.warn("%s bad that no level needs: nothing is lost, but the disk should be looked at", count(report.Unused, "chunk"))
	}
	p.talk.with("levels", report.Levels, "packs", report.Packs, "left", report.Left, "bytes", report.Bytes,
		"damaged", len(report.Damaged), "seconds", report.Seconds).say("scrub: %s", scrubAllSummary(report))
	return err
}

func scrubAllSummary(r engine.ScrubAllReport) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, checked %s, %s, %s and %s", count(r.Levels, "level"), count(r.Packs, "pack"), count(r.Checked, "chunk"),
		bytesText(r.Bytes), count(r.Objects, "other object"))
	if r.Left > 0 {
		fmt.Fprintf(&b, ", %s left to the next scrub", count(r.Left, "pack"))
	}
	fmt.Fprintf(&b, ", %s damaged", count(int64(len(r.Damaged)), "level"))
	if r.Copies > 0 {
		fmt.Fprintf(&b, ", %s with a bad copy", count(r.Copies, "map node"))
	}
	if r.Tables > 0 {
		fmt.Fprintf(&b, ", %s to be written anew", count(r.Tables, "pack"))
	}
	fmt.Fprintf(&b, ", %s", secondsText(r.Seconds))
	return b.String()
}

// scrubAllReport is engine.ScrubAllReport as JSON.
type scrubAllReport struct {
	Levels  int64         `json:"levels"`
	Objects int64         `json:"objects"`
	Packs   int64         `json:"packs"`
	Left    int64         `json:"left"`
	Checked int64         `json:"checked"`
	Bytes   int64         `json:"bytes"`
	Damaged []levelDamage `json:"damaged"`
	Bad     []badObject   `json:"bad_objects"`

	Lost []store.LostLevel `json:"lost,omitempty"` // levels whose records are lost

	Copies  int64     `json:"map_nodes"`
	Tables  int64     `json:"rewrites"`
	Unused  int64     `json:"unused"`
	Oldest  time.Time `json:"oldest,omitzero"`
	Seconds float64   `json:"seconds"`
}

type levelDamage struct {
	Name    store.Name        `json:"name"`
	Level   store.LevelNumber `json:"number"`
	Damaged []byteRange       `json:"damaged"`
}

type badObject struct {
	Key   string `json:"key"`
	Error string `json:"error"`
}

func newScrubAllReport(r engine.ScrubAllReport) *scrubAllReport {
	s := &scrubAllReport{
		Levels: r.Levels, Objects: r.Objects, Packs: r.Packs, Left: r.Left, Checked: r.Checked, Bytes: r.Bytes,
		Copies: r.Copies, Tables: r.Tables, Unused: r.Unused, Oldest: r.Oldest, Seconds: r.Seconds,
		Damaged: []levelDamage{}, Bad: []badObject{},
	}
	for _, d := range r.Damaged {
		s.Damaged = append(s.Damaged, levelDamage{d.Name, d.Level, byteRanges(d.Extents)})
	}
	if r.Lost != nil {
		s.Lost = r.Lost.Levels
	}
	for _, b := range r.Bad {
		s.Bad = append(s.Bad, badObject{b.Key, b.Err.Error()})
	}
	return s
}
