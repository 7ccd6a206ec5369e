package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/engine/batch"
	"backy/engine/health"
	"backy/store"
	"backy/store/pending"
)

// gauge is one metric: all of them are gauges, since a file tells of one run.
type gauge struct {
	name, help string
	labels     []string
}

// Those of a name come from the repository, not from the run: so a run in which
// an image failed still tells when it last succeeded.
var (
	gLastSuccess = gauge{"backy_last_success_timestamp_seconds", "When the newest level was committed; 0: there is none.", byName}
	gLastLevel   = gauge{"backy_last_level_timestamp_seconds", "The moment whose bytes the newest level holds; 0: there is none.", byName}
	gLastScrub   = gauge{"backy_last_scrub_timestamp_seconds", "When a level was last found whole by a scrub; 0: never.", byName}
	gLevels      = gauge{"backy_levels", "Levels that there are.", byName}
	gSize        = gauge{"backy_image_size_bytes", "Size of the image in the newest level.", byName}
	gDuration    = gauge{"backy_backup_duration_seconds", "How long the backup of the newest level took.", byName}
	gRead        = gauge{"backy_backup_read_bytes", "What the backup of the newest level read from the image.", byName}
	gChanged     = gauge{"backy_backup_changed_bytes", "What differed from the level before the newest.", byName}
	gAdded       = gauge{"backy_backup_added_bytes", "What the newest level added to the repository.", byName}
	gCompressed  = gauge{"backy_backup_compressed_ratio", "What compression left of the newest level's new chunks, from 0 to 1.", byName}
	gChunks      = gauge{"backy_damaged_chunks", "Chunks known to be bad, counted in each level that needs them.", byName}
	gDamaged     = gauge{"backy_damaged_levels", "Levels of which something is known to be bad.", byName}
	gUnusual     = gauge{"backy_unusual", "1 where a figure of the newest level is far off what is usual.", byFigure}
	gUnusualIs   = gauge{"backy_unusual_ratio", "A figure that is far off, from 0 to 1.", byFigure}
	gUsual       = gauge{"backy_usual_ratio", "What is usual of a figure that is far off, from 0 to 1.", byFigure}
	gFailed      = gauge{"backy_backup_failed", "1 where the run failed to back up the image.", byName}
	gProblem     = gauge{"backy_problem", "1 for each problem that status found.", []string{"name", "problem"}}

	gRunTime     = gauge{"backy_run_timestamp_seconds", "When the run ended.", nil}
	gRunDuration = gauge{"backy_run_duration_seconds", "How long the run took.", nil}
	gRunCode     = gauge{"backy_run_exit_code", "Exit code of the run.", nil}
	gRunImages   = gauge{"backy_run_images", "What became of the images of a pool in the run.", []string{"result"}}
	gImages      = gauge{"backy_images", "Images by their state, as status tells it.", []string{"state"}}
	gStrays      = gauge{"backy_stray_snapshots", "Snapshots of the repository that no level needs.", nil}
	gStraySpace  = gauge{"backy_stray_snapshot_bytes", "What those keep at most.", nil}
	gScrubBytes  = gauge{"backy_scrub_read_bytes", "What the scrub read.", nil}
	gScrubLeft   = gauge{"backy_scrub_left_packs", "Packs that the scrub left to the next.", nil}
	gScrubBad    = gauge{"backy_scrub_damaged_levels", "Levels that the scrub found damaged.", nil}
	gFreed       = gauge{"backy_gc_freed_bytes", "What the gc gave back.", nil}
	gBuild       = gauge{"backy_build_info", "1, with the version of backy.", []string{"version"}}

	byName   = []string{"name"}
	byFigure = []string{"name", "figure"}

	gauges = []gauge{
		gLastSuccess, gLastLevel, gLastScrub, gLevels, gSize, gDuration, gRead, gChanged, gAdded, gCompressed, gChunks, gDamaged,
		gUnusual, gUnusualIs, gUsual, gFailed, gProblem,
		gRunTime, gRunDuration, gRunCode, gRunImages, gImages, gStrays, gStraySpace, gScrubBytes, gScrubLeft, gScrubBad, gFreed, gBuild,
	}
)

// metrics are what a run writes for node_exporter's textfile collector.
type metrics struct {
	file    string
	started time.Time
	source  string // what the run was about, as typed
	folder  string // the repository's

	repo   *store.Repository
	names  []store.Name // that the run was about
	all    bool         // it was about all names
	items  []health.Item
	known  bool // items are all that is known
	backup bool // the run backs up
}

func metricsFlag(m *metrics) cli.Flag {
	return &cli.StringFlag{
		Name: "metrics-file", Destination: &m.file,
		Usage: "write figures for Prometheus to `FILE`",
	}
}

// about says which names' figures are wanted.
func (m *metrics) about(repo *store.Repository, names ...store.Name) { m.repo, m.names = repo, names }

// metricsTime bounds looking at the repository for metrics after the run was
// ended.
const metricsTime = 30 * time.Second

// lookUp finds out about the names of the run, whatever became of it.
func (m *metrics) lookUp(ctx context.Context) error {
	if m.file == "" || m.known || m.repo == nil {
		return nil
	}
	if ctx.Err() != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), metricsTime)
		defer cancel()
		ctx = late
	}
	if m.all {
		names, err := m.repo.Names(ctx)
		if err != nil {
			return fmt.Errorf("find the figures for --metrics-file: %w", err)
		}
		m.names = names
	}
	images := make([]health.Image, len(m.names))
	for i, n := range m.names {
		images[i].Name = n
	}
	r, err := health.Look(ctx, m.repo, images, health.Options{})
	if err != nil {
		return fmt.Errorf("find the figures for --metrics-file: %w", err)
	}
	m.items, m.known = r.Items, true
	return nil
}

// write writes the file: whole or not at all, and readable for others. Where the
// run ended before it knew its images, what the file said of them stays.
func (m *metrics) write(r *report) error {
	// A run that ends before it has looked comes here, too.
	if err := m.checkFile(); m.file == "" || err != nil {
		return err
	}
	labels := prometheus.Labels{"command": r.Command, "source": m.source, "repository": m.folder}
	if r.Repository != nil {
		labels["repository"] = r.Repository.Path
	}
	s := &samples{labels: labels}
	m.run(s, r)
	for i := range m.items {
		s.item(&m.items[i], r.Command == "status")
	}
	if m.backup {
		m.failures(s, r)
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(s); err != nil {
		return fmt.Errorf("--metrics-file: %w", err)
	}
	from := prometheus.Gatherers{registry}
	if !m.known {
		from = append(from, prometheus.GathererFunc(m.before))
	}
	defer pending.Begin("write", "", m.file).End()
	if err := prometheus.WriteToTextfile(m.file, from); err != nil {
		return fmt.Errorf("write --metrics-file %s: %w", m.file, err)
	}
	return nil
}

// before reads what the file says of names.
func (m *metrics) before() ([]*dto.MetricFamily, error) {
	f, err := os.Open(m.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(f)
	if err != nil {
		return nil, nil // not ours, or cut short: nothing is lost that the repository does not know
	}
	var kept []*dto.MetricFamily
	for _, g := range gauges {
		if g.name == gFailed.name || g.name == gProblem.name {
			continue // that was about the run before
		}
		if family := families[g.name]; family != nil && slices.Contains(g.labels, "name") {
			kept = append(kept, family)
		}
	}
	return kept, nil
}

// run are the figures of the run itself.
func (m *metrics) run(s *samples, r *report) {
	now := time.Now()
	s.add(gRunTime, unixTime(now))
	s.add(gRunDuration, now.Sub(m.started).Seconds())
	s.add(gRunCode, float64(r.ExitCode))
	s.add(gBuild, 1, versions().Backy)
	if r.Images != nil {
		counts := map[batch.Word]int{}
		for i := range r.Images {
			counts[r.Images[i].Result]++
		}
		for _, w := range resultWords {
			s.add(gRunImages, float64(counts[w]), string(w))
		}
	}
	if st := r.Status; st != nil {
		for _, w := range health.Words {
			s.add(gImages, float64(st.Counts[string(w)]), string(w))
		}
		if st.ForPool != "" {
			s.add(gStrays, float64(st.Strays))
			s.add(gStraySpace, float64(st.Space))
		}
	}
	if r.Scrub != nil {
		s.add(gScrubBytes, float64(r.Scrub.Bytes))
		s.add(gScrubBad, one(len(r.Scrub.Damaged) > 0))
	}
	if r.ScrubAll != nil {
		s.add(gScrubBytes, float64(r.ScrubAll.Bytes))
		s.add(gScrubBad, float64(len(r.ScrubAll.Damaged)))
		s.add(gScrubLeft, float64(r.ScrubAll.Left))
	}
	if r.GC != nil {
		s.add(gFreed, float64(r.GC.Freed))
	}
}

// failures tells which images the run failed to back up.
func (m *metrics) failures(s *samples, r *report) {
	failed := map[store.Name]bool{}
	for _, n := range m.names {
		failed[n] = r.Images == nil && r.ExitCode != exitDone
	}
	for i := range r.Images {
		if im := &r.Images[i]; im.Name != "" && im.Result != batch.Excluded && im.Result != batch.Gone {
			failed[im.Name] = im.Result == batch.Failed || im.Result == batch.Ended
		}
	}
	for n, f := range failed {
		s.add(gFailed, one(f), string(n))
	}
}

// samples is a prometheus.Collector of what was added.
type samples struct {
	labels prometheus.Labels // of all
	list   []prometheus.Metric
}

func (s *samples) add(g gauge, value float64, labels ...string) {
	desc := prometheus.NewDesc(g.name, g.help, g.labels, s.labels)
	s.list = append(s.list, prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...))
}

// Describe implements prometheus.Collector: nothing is promised.
func (s *samples) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *samples) Collect(to chan<- prometheus.Metric) {
	for _, m := range s.list {
		to <- m
	}
}

// item are the figures of a name.
func (s *samples) item(i *health.Item, problems bool) {
	if i.Name == "" || i.State == health.Excluded || i.State == health.Gone {
		return
	}
	name := string(i.Name)
	l := i.Newest
	if l == nil {
		l = &store.Level{}
	}
	dated := i.Dated
	if dated == nil || engine.Future(dated.Committed, time.Now()) {
		dated = &store.Level{} // a time in the future would keep every alarm quiet
	}
	s.add(gLastSuccess, unixTime(dated.Committed), name)
	s.add(gLastLevel, unixTime(dated.Time), name)
	s.add(gLastScrub, unixTime(i.Scrubbed), name)
	s.add(gLevels, float64(i.Levels), name)
	s.add(gChunks, float64(i.DamagedChunks), name)
	s.add(gDamaged, float64(len(i.DamagedLevels)), name)
	if i.Newest != nil {
		s.add(gSize, float64(l.Size), name)
		s.add(gDuration, l.Stats.Seconds, name)
		s.add(gRead, float64(l.Stats.Read), name)
		s.add(gChanged, float64(l.Stats.Changed), name)
		s.add(gAdded, float64(l.Stats.Stored), name)
	}
	if l.Stats.Raw > 0 {
		s.add(gCompressed, float64(l.Stats.Packed)/float64(l.Stats.Raw), name)
	}
	for _, figure := range []engine.Figure{engine.FigureChanged, engine.FigureCompressed, engine.FigureEmptied} {
		at := slices.IndexFunc(i.Unusual, func(u engine.Unusual) bool { return u.Figure == figure })
		s.add(gUnusual, one(at >= 0), name, string(figure))
		if at >= 0 {
			s.add(gUnusualIs, i.Unusual[at].Value, name, string(figure))
			s.add(gUsual, i.Unusual[at].Usual, name, string(figure))
		}
	}
	if problems {
		for _, w := range i.Problems {
			s.add(gProblem, 1, name, string(w))
		}
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// unixTime is a time as Prometheus has it; 0 for none.
func unixTime(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// checkFile refuses a file that cannot be written before the work is done.
func (m *metrics) checkFile() error {
	if m.file == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(m.file)); err != nil {
		return fmt.Errorf("--metrics-file: %w", err)
	} else if !info.IsDir() {
		return usagef("--metrics-file %s: %s is no folder", m.file, filepath.Dir(m.file))
	}
	// It is replaced as a whole, whatever is there.
	if info, err := os.Lstat(m.file); err == nil && !info.Mode().IsRegular() {
		return usagef("--metrics-file %s: is no regular file, and would be replaced by one", m.file)
	}
	if err := inNoRepository(m.file); err != nil {
		return fmt.Errorf("--metrics-file: %w", err)
	}
	return nil
}
