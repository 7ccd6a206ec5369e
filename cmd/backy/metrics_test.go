package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"backy/engine"
	"backy/engine/batch"
	"backy/engine/health"
	"backy/store"
)

// everything are metrics of a run that has all that there can be.
func everything(file string) (*metrics, *report) {
	at := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	good := store.Level{
		Name: "vms/web1", Number: 3, Time: at, Committed: at.Add(time.Minute), Size: 10 << 30,
		Stats: store.Stats{Read: 100, Changed: 80, Stored: 40, Raw: 80, Packed: 36, Seconds: 1.5},
	}
	m := &metrics{file: file, started: at, source: "rbd:vms", known: true, backup: true, items: []health.Item{
		{
			Name: "vms/web1", State: health.Damaged, Problems: []health.Word{health.Damaged, health.Unusual}, Levels: 3, Level: 3, Time: at,
			Scrubbed: at, DamagedChunks: 2, DamagedLevels: []store.LevelNumber{1, 3}, Newest: &good, Dated: &good,
			Unusual: []engine.Unusual{{Figure: engine.FigureChanged, Value: 0.9, Usual: 0.01, Levels: 7}},
		},
		{Name: "vms/web2", State: health.Missing, Problems: []health.Word{health.Missing}},
		{Name: "vms/scratch", State: health.Excluded},
	}}
	r := &report{
		Command: "backup", Repository: &repositoryReport{Path: "/mnt/backups"},
		Images:   []batch.Result{{Name: "vms/web1", Result: batch.Failed}, {Name: "vms/web2", Result: batch.Done}, {Name: "vms/scratch", Result: batch.Excluded}},
		Scrub:    &scrubReport{},
		ScrubAll: &scrubAllReport{Bytes: 5, Left: 2},
		GC:       &store.GCReport{Freed: 7},
		Status:   &statusReport{ForPool: "rbd:vms", Strays: 1, Space: 4096, Counts: statusCounts{"fine": 2}},
	}
	return m, r
}

func content(t *testing.T, file string) string {
	t.Helper()
	p, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

func wantLines(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w+"\n") {
			t.Errorf("there is no %s in\n%s", w, text)
		}
	}
}

// A run in which an image failed tells when it last succeeded, and who has no
// level has a time that is long ago.
func TestMetrics(t *testing.T) {
	file := filepath.Join(t.TempDir(), "backy.prom")
	m, r := everything(file)
	r.ScrubAll = nil
	if err := m.write(r); err != nil {
		t.Fatal(err)
	}
	const labels = `command="backup",name="vms/web1",repository="/mnt/backups",source="rbd:vms"} `
	text := content(t, file)
	wantLines(t, text,
		`backy_last_success_timestamp_seconds{`+labels+`1.795395783e+09`,
		`backy_last_level_timestamp_seconds{`+labels+`1.795395723e+09`,
		`backy_last_success_timestamp_seconds{`+strings.Replace(labels, "web1", "web2", 1)+`0`,
		`backy_backup_failed{`+labels+`1`,
		`backy_backup_failed{`+strings.Replace(labels, "web1", "web2", 1)+`0`,
		`backy_backup_read_bytes{`+labels+`100`,
		`backy_backup_added_bytes{`+labels+`40`,
		`backy_backup_duration_seconds{`+labels+`1.5`,
		`backy_backup_compressed_ratio{`+labels+`0.45`,
		`backy_damaged_chunks{`+labels+`2`,
		`backy_unusual{command="backup",figure="changed",name="vms/web1",repository="/mnt/backups",source="rbd:vms"} 1`,
		`backy_unusual{command="backup",figure="compressed",name="vms/web1",repository="/mnt/backups",source="rbd:vms"} 0`,
		`backy_usual_ratio{command="backup",figure="changed",name="vms/web1",repository="/mnt/backups",source="rbd:vms"} 0.01`,
		`backy_run_images{command="backup",repository="/mnt/backups",result="failed",source="rbd:vms"} 1`,
	)
	if strings.Contains(text, "scratch") {
		t.Errorf("it tells of what is excluded:\n%s", text)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); len(left) != 1 {
		t.Errorf("files: %q", left)
	}
}

// A run that ended before it knew its images leaves what the file said of them.
func TestMetricsOfARunThatKnowsNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "backy.prom")
	m, r := everything(file)
	if err := m.write(&report{Command: "backup"}); err != nil {
		t.Fatal(err)
	}
	r.ScrubAll = nil
	if err := m.write(r); err != nil {
		t.Fatal(err)
	}
	before := content(t, file)
	blind := &metrics{file: file, started: time.Now(), source: "rbd:vms", folder: "/mnt/backups", backup: true, names: []store.Name{"vms/web1"}}
	for range 2 {
		if err := blind.write(&report{Command: "backup", ExitCode: 1}); err != nil {
			t.Fatal(err)
		}
	}
	after := content(t, file)
	for line := range strings.Lines(before) {
		if strings.HasPrefix(line, gLastSuccess.name+"{") && !strings.Contains(after, line) {
			t.Errorf("it is lost: %s", line)
		}
	}
	wantLines(t, after,
		`backy_run_exit_code{command="backup",repository="/mnt/backups",source="rbd:vms"} 1`,
		`backy_backup_failed{command="backup",name="vms/web1",repository="/mnt/backups",source="rbd:vms"} 1`,
	)
	if strings.Contains(after, gRunImages.name) {
		t.Errorf("it tells of images:\n%s", after)
	}
	if err := os.WriteFile(file, []byte("no metrics"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := blind.write(&report{Command: "backup", ExitCode: 1}); err != nil {
		t.Errorf("over a file of others: %v", err)
	}
}

// The names are as Prometheus wants them, and each is written by some run.
func TestMetricsLint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "backy.prom")
	var all strings.Builder
	for _, change := range []func(r *report){
		func(r *report) { r.Scrub = nil },
		func(r *report) { r.ScrubAll, r.Command = nil, "status" },
	} {
		m, r := everything(file)
		change(r)
		if err := m.write(r); err != nil {
			t.Fatal(err)
		}
		text := content(t, file)
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
		all.WriteString(text)
	}
	for _, g := range gauges {
		if !strings.Contains(all.String(), "\n"+g.name+"{") {
			t.Errorf("no run writes %s", g.name)
		}
	}
}

// The dashboard asks for nothing that there is not.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../docker/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title  string
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			names := regexp.MustCompile(`backy_[a-z_]+`).FindAllString(target.Expr, -1)
			if len(names) == 0 {
				t.Errorf("%s: %q asks for nothing of ours", panel.Title, target.Expr)
			}
			for _, n := range names {
				asked++
				if !slices.ContainsFunc(gauges, func(g gauge) bool { return g.name == n }) {
					t.Errorf("%s: there is no metric %s", panel.Title, n)
				}
			}
		}
	}
	if dashboard.Title == "" || asked < 10 {
		t.Errorf("title %q, %d metrics", dashboard.Title, asked)
	}
}

// A folder that is not there is told before the work begins.
func TestMetricsFile(t *testing.T) {
	m := &metrics{file: filepath.Join(t.TempDir(), "nosuch", "backy.prom")}
	if err := m.checkFile(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	m.file = "/dev/null/backy.prom"
	if err := m.checkFile(); err == nil {
		t.Error("no folder, but a device")
	}
}
