//go:build cgo

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// report is what the bench found.
type report struct {
	started time.Time
	rows    []*row
	curves  []curve
}

func (r *report) row(work string) *row {
	for _, have := range r.rows {
		if have.work == work {
			return have
		}
	}
	r.rows = append(r.rows, &row{work: work})
	return r.rows[len(r.rows)-1]
}

// target is a promise: a figure of backy's is at most so many times another
// tool's in the same row.
type target struct {
	work   string
	other  string
	factor float64
	figure string
	ours   string // "": backy
}

const (
	inSeconds = "seconds"
	inAdded   = "bytes added"
)

var targets = []target{
	{work: first, other: pipe, factor: 0.9, figure: inSeconds},
	{work: first, factor: 0.4, figure: inSeconds}, // other "": the best of the backup systems
	{work: first, other: "borg", factor: 1.06, figure: inAdded},
	{work: first, other: "kopia", factor: 1.06, figure: inAdded},
	{work: increment, other: pipe, factor: 1, figure: inSeconds},
	{work: increment, factor: 0.1, figure: inSeconds},
	{work: increment, other: pipe, factor: 2, figure: inAdded},
	{work: increment, factor: 0.05, figure: inAdded},
	{work: unchanged, other: "rbd info", factor: 3, figure: inSeconds},
	{work: toRBD, other: rbdX, factor: 1.1, figure: inSeconds},
	{work: toRBD, factor: 0.5, figure: inSeconds},
	{work: toFile, other: cp, factor: 1.5, figure: inSeconds},
	{work: scrub, other: pipe, factor: 0.8, figure: inSeconds},
	{work: scrub, other: reading, factor: 1.5, figure: inSeconds, ours: quick},
	{work: fileSame, other: "reading and BLAKE3, all cores", factor: 1.5, figure: inSeconds},
}

// systems are the tools that keep more than one backup.
var systems = []string{"restic", "borg", "kopia"}

func (t *target) of(s sample) float64 {
	if t.figure == inAdded {
		return float64(s.Added)
	}
	return s.Seconds
}

// check says how far backy is from a target; "" where that was not measured.
func (t *target) check(r *row) string {
	others := []string{t.other}
	if t.other == "" {
		others = systems
	}
	ours := r.samples[cmp.Or(t.ours, "backy")]
	name, best := "", 0.0
	for _, other := range others {
		if list := r.samples[other]; len(list) > 0 {
			if v := t.of(median(list)); name == "" || v < best {
				name, best = other, v
			}
		}
	}
	if len(ours) == 0 || name == "" || best == 0 {
		return ""
	}
	ratio := t.of(median(ours)) / best
	verdict := "met"
	if ratio > t.factor {
		verdict = "**missed**"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | ≤ %.2f | %.2f | %s |\n", t.work, cmp.Or(t.ours, "backy"), t.figure, name, t.factor, ratio, verdict)
}

// markdown draws the tables.
func (r *report) markdown(conditions string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# backy and its peers, %s\n\n%s\n", r.started.UTC().Format("2006-01-02"), conditions)
	for _, row := range r.rows {
		fmt.Fprintf(&b, "\n## %s\n\n| | seconds | | CPU s | read MiB | added MiB | peak MiB |\n|---|--:|--:|--:|--:|--:|--:|\n", row.work)
		ours := median(orNone(row.samples["backy"])).Seconds
		for _, tool := range row.order {
			m := median(row.samples[tool])
			fmt.Fprintf(&b, "| %s | %.2f | %s | %.2f | %s | %s | %d |\n", tool, m.Seconds, times(m.Seconds, ours), m.CPU,
				mib(m.Read), mib(m.Added), m.Peak>>20)
		}
	}
	var lines string
	for _, t := range targets {
		for _, row := range r.rows {
			if row.work == t.work {
				lines += t.check(row)
			}
		}
	}
	if peak := r.peak(); lines != "" {
		verdict := "met"
		if peak > maxPeak {
			verdict = "**missed**"
		}
		lines += fmt.Sprintf("| all | backy | peak MiB | | ≤ %d | %d | %s |\n", maxPeak>>20, peak>>20, verdict)
		b.WriteString("\n## Targets\n\n| work | of | figure | against | target | is | |\n|---|---|---|---|--:|--:|---|\n" + lines)
	}
	for _, c := range r.curves {
		b.WriteString("\n" + c.markdown())
	}
	return b.String()
}

// maxPeak is what backy may take in rows of up to 8 GiB.
const maxPeak = 300 << 20

// peak is the most that backy took in any row.
func (r *report) peak() (peak int64) {
	for _, row := range r.rows {
		for _, s := range row.samples["backy"] {
			peak = max(peak, s.Peak)
		}
	}
	return peak
}

func orNone(list []sample) []sample {
	if len(list) == 0 {
		return []sample{{}}
	}
	return list
}

func times(v, ours float64) string {
	if ours == 0 || v == ours {
		return ""
	}
	return fmt.Sprintf("× %.2f", v/ours)
}

func mib(n int64) string {
	switch {
	case n <= 0:
		return "·"
	case n < 100<<20:
		return fmt.Sprintf("%.1f", float64(n)/(1<<20))
	}
	return fmt.Sprint(n >> 20)
}

// conditions says on what it was measured.
func (b *bench) conditions() string {
	version := func(args ...string) string {
		out, _ := exec.Command(args[0], args[1:]...).Output()
		line, _, _ := bytes.Cut(out, []byte("\n"))
		return string(line)
	}
	cpu := "?"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(info), "\n") {
			if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(model)
			}
		}
	}
	return fmt.Sprintf("%d cores, %s; %s; %s; medians of %d runs, tools taking turns, of one run where that took twice as long as backy; repositories and cluster in RAM; the image's content × %g.\n"+
		"The second column is relative to backy. CPU: of the tool, without the cluster. Read: what the OSDs gave it.\n",
		runtime.NumCPU(), cpu, version(b.o.backy, "version"), version("ceph", "--version"), b.o.runs, b.o.scale)
}

// finish writes the report and says where.
func (b *bench) finish() error {
	text := b.report.markdown(b.conditions())
	path := filepath.Join(b.o.out, "bench.md")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Print(text)
	plots, err := b.report.draw(b.o.out)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "bench: written:", strings.Join(append([]string{path}, plots...), ", "))
	return nil
}
