package main

import (
	"time"

	"backy/engine"
	"backy/engine/batch"
	"backy/hints"
	"backy/store"
)

// report is the document that --json prints. Its fields are documented in the
// README; those that a command does not fill are left out.
type report struct {
	Command  string   `json:"command"`
	ExitCode int      `json:"exit_code"`
	Error    string   `json:"error,omitempty"`
	Hint     string   `json:"hint,omitempty"`
	Warnings []string `json:"warnings"`

	Repository *repositoryReport   `json:"repository,omitempty"`
	Name       store.Name          `json:"name,omitempty"`
	Level      *store.Level        `json:"level,omitempty"`
	Target     string              `json:"target,omitempty"`
	Restore    *restoreReport      `json:"restore,omitempty"`
	Scrub      *scrubReport        `json:"scrub,omitempty"`
	ScrubAll   *scrubAllReport     `json:"scrub_all,omitempty"`
	Names      []nameReport        `json:"names,omitzero"`
	Levels     []levelReport       `json:"levels,omitzero"`
	DU         *store.Usage        `json:"du,omitempty"`
	Removed    []store.LevelNumber `json:"removed,omitzero"`
	Forget     []engine.Decision   `json:"forget,omitzero"`
	GC         *store.GCReport     `json:"gc,omitempty"`
	Recovered  []store.Recovered   `json:"recovered,omitzero"`
	Abandoned  []store.LostLevel   `json:"abandoned,omitzero"`
	Images     []batch.Result      `json:"images,omitzero"`
	Status     *statusReport       `json:"status,omitempty"`
	Snapshots  []snapshotReport    `json:"snapshots,omitzero"`
	Version    *versionReport      `json:"version,omitempty"`
}

// set fills in how the run ended.
func (r *report) set(err error, warnings []string) {
	r.ExitCode = exitCode(r.Command, err)
	r.Warnings = warnings
	if err != nil && !isA[*stateError](err) {
		r.Error, r.Hint = err.Error(), hintOf(err)
	}
}

// repositoryReport tells which repository a command worked on.
type repositoryReport struct {
	Path      string             `json:"path"`
	ID        store.RepositoryID `json:"id"`
	ChunkSize int64              `json:"chunk_size"`
	Created   bool               `json:"created"` // by this run
}

// nameReport is one backup name in a list of them.
type nameReport struct {
	Name   store.Name  `json:"name"`
	Levels int         `json:"levels"`
	Latest store.Level `json:"latest"`
}

// levelReport is one level in a list of them.
type levelReport struct {
	store.Level
	Scrubbed time.Time `json:"scrubbed,omitzero"` // when it was last checked whole
}

// scrubReport is engine.ScrubReport with its extents as ranges.
type scrubReport struct {
	engine.ScrubReport
	Damaged   []byteRange `json:"damaged"`
	Different []byteRange `json:"different"`
}

// restoreReport is engine.RestoreReport with its extents as ranges.
type restoreReport struct {
	engine.RestoreReport
	Damaged []byteRange `json:"damaged"`
}

func newRestoreReport(r engine.RestoreReport) *restoreReport {
	return &restoreReport{r, byteRanges(r.Damaged)}
}

type byteRange struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

func newScrubReport(r engine.ScrubReport) *scrubReport {
	return &scrubReport{r, byteRanges(r.Damaged), byteRanges(r.Different)}
}

func byteRanges(extents []hints.Extent) []byteRange {
	ranges := make([]byteRange, 0, len(extents))
	for _, e := range extents {
		ranges = append(ranges, byteRange{e.Offset, e.Length})
	}
	return ranges
}

// versionReport is what backy version prints.
type versionReport struct {
	Backy    string `json:"backy"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Librbd   string `json:"librbd"`   // release of the library in use; "" in a build without
	Librados string `json:"librados"` // likewise
}

// timeText is a time for people: local, to the second.
func timeText(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
