//go:build cgo

package main

import (
	"bytes"
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
}

const (
	inSeconds = "seconds"
	inAdded   = "bytes added"
)

var targets = []target{
	{first, pipe, 0.9, inSeconds},
	{first, "", 0.4, inSeconds}, // "": the best of the backup systems
	{first, "borg", 1.06, inAdded},
	{first, "kopia", 1.06, inAdded},
	{increment, pipe, 1, inSeconds},
	{increment, "", 0.1, inSeconds},
	{increment, pipe, 2, inAdded},
	{increment, "", 0.05, inAdded},
	{toRBD, rbdX, 1.1, inSeconds},
	{toRBD, "", 0.5, inSeconds},
	{toFile, cp, 1.5, inSeconds},
	{scrub, pipe, 0.8, inSeconds},
	{fileSame, "reading and BLAKE3, all cores", 1.5, inSeconds},
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
	ours := r.samples["backy"]
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
	return fmt.Sprintf("| %s | %s | %s | ≤ %.2f | %.2f | %s |\n", t.work, t.figure, name, t.factor, ratio, verdict)
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
	if lines != "" {
		b.WriteString("\n## Targets\n\n| work | figure | against | target | is | |\n|---|---|---|--:|--:|---|\n" + lines)
	}
	for _, c := range r.curves {
		b.WriteString("\n" + c.markdown())
	}
	return b.String()
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
	return fmt.Sprintf("%d cores, %s; %s; %s; medians of %d runs, tools taking turns; repositories and cluster in RAM; the image's content × %g.\n"+
		"The second column is relative to backy. CPU: of the tool, without the cluster. Read: what the OSDs gave it.\n",
		runtime.NumCPU(), cpu, version(b.o.backy, "version"), version("ceph", "--version"), b.o.runs, b.o.scale)
}

// finish writes the report and says where.
func (b *bench) finish() error {
	if err := os.MkdirAll(b.o.out, 0o755); err != nil {
		return err
	}
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
